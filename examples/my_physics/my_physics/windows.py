"""Attention over time, then within windows of 2 x 2 coarsest patches, then within shifted ones: Swin, arXiv:2103.14030."""

from functools import partial

from matey.tokens.segments import joint_key, place_key


def window_key(layout, shift):
    """Bring the tokens of one window and time together; (z, y, x) of a window are those of its first patch, halved."""
    window = (layout.band[:, 1:] + shift) // 2
    return joint_key(layout.sample, layout.family, layout.band[:, 0], *window.unbind(1))


def windows(patches):
    return place_key, partial(window_key, shift=0), partial(window_key, shift=1)
