"""Estimates the cost of a run on a machine before node hours are spent: tokens, memory, communication and time."""
