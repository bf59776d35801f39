"""Scaling studies: how runs are made, measured and drawn beside their plan."""
