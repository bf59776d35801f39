"""From fields to a packed list of tokens: pure functions, tensors in and tensors out."""
