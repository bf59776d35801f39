"""The start, the signals and the end of a process: all that has to be known or set before PyTorch is imported."""
