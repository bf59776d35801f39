"""Makes forecasts, with or without truth: frame by frame, as files for other programs, and as series at single cells."""
