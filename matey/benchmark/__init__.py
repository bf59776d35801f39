"""Times the parts of a run: a training step, reading data, a sequence group."""
