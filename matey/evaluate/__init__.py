"""How good a trained model is: errors, rollouts, baselines, and the report that shows them."""
