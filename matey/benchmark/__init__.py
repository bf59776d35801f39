"""Times a training step."""
