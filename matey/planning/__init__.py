"""What a run will cost on a machine: tokens, memory, communication and time, before node hours are spent."""
