"""Arrays in files of any kind, by name: what is said of them, and parts of their values; knows nothing of trajectories."""
