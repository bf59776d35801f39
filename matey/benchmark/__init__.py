"""Times what a run consists of: a step, reading, a sequence group."""
