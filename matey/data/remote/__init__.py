"""Data on other machines, fetched by fsspec as it is read and kept on this one."""
