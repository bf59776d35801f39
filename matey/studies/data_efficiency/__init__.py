"""Error against the number of training trajectories, from a pretrained model and from random weights."""
