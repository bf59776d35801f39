"""Runs of many points, what each gave, and their tables and plots."""
