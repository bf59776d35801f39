"""Pages and pictures of what was evaluated."""
