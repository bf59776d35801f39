"""What a checkpoint on disk holds, read without DeepSpeed and without running code from it, and written in other forms."""
