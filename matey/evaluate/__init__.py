"""Measures how good a trained model is: errors, rollouts, records of both, and baselines."""
