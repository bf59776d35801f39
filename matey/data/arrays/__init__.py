"""Reads arrays of any kind of file by name: their metadata and parts of their values; knows nothing of trajectories."""
