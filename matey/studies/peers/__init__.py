"""Compares MATEY with other models of the same task, trained on the same windows at the same cost."""
