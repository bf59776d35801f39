"""The attention schemes: for each attention of a block, in order, the key by which tokens attend to each other.

A scheme is a function of the patch sizes. A key is a function of the layout; it gives every token an integer, and tokens with
equal integers attend to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from matey.tokens.layout import TokenLayout
from matey.tokens.patches import Patch, long_axes
from matey.tokens.segments import line_key, place_key, sample_key, time_key

Key = Callable[[TokenLayout], Tensor]


def vit(patches: Sequence[Patch]) -> tuple[Key, ...]:
    """Attend over space and time at once."""
    return (sample_key,)


def svit(patches: Sequence[Patch]) -> tuple[Key, ...]:
    """Attend over time, then over space."""
    return place_key, time_key


def avit(patches: Sequence[Patch]) -> tuple[Key, ...]:
    """Attend over time, then along each of the axes z, y, x on which a patch has more than one cell."""
    return place_key, *(partial(line_key, axis=axis) for axis in long_axes(patches))
