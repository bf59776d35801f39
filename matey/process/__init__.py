"""How a process begins, listens to signals, and ends: what has to be known or set before PyTorch is imported."""
