"""Data on other machines, which fsspec fetches when it is read and a cache keeps on this one."""
