"""Peers of MATEY that have learnt nothing yet."""

import torch

from matey.peers.kinds import untrained


def network_of(kind, num_fields=1):
    """Return a network for two frames, the same at every call."""
    torch.manual_seed(0)
    return untrained(kind, 2, num_fields)
