"""The network: written for one process, it knows of no ranks and no engine."""
