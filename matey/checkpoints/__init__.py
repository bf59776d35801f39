"""Reads checkpoints on disk without DeepSpeed and without running code from them, and writes them in other forms."""
