"""Scaling studies: they plan and measure runs, and draw the measurements beside the plan."""
