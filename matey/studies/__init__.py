"""Studies of many runs: they run points, collect the results, and make tables and plots."""
