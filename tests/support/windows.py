"""Windows around blocks of a whole frame."""

from collections.abc import Sequence

from torch import Tensor

from matey.tokens.patches import Places, extend, windows_of


def surroundings(
    frame: Tensor, cells: Sequence[int], halo: Sequence[int], periodic: Sequence[bool], blocks: Places
) -> Tensor:
    """Cut a window around some blocks of cells.

    Args:
        frame: ``(b, f, z, y, x)``, the field to cut from.
        cells: size ``z, y, x`` of the blocks; it divides what the patches cover.
        halo: width in cells, along ``z, y, x``, of the margin of the window on either side of its block; beyond its
            ends the field is continued as in `extend`.
        periodic: whether the domain wraps around along ``z, y, x``.
        blocks: the ``c`` blocks, on the grid of blocks of what the patches cover.

    Returns:
        ``(c, f, window)``, the values in each window, flattened.
    """
    samples, *box = blocks.box
    axes = list(zip(box, cells, halo, strict=True))
    beyond = [side.stop * size + reach for side, size, reach in axes]
    frame = extend(frame[samples], beyond, periodic, before=[reach - side.start * size for side, size, reach in axes])
    return windows_of(
        frame, (samples.start, *(side.start * size - reach for side, size, reach in axes)), cells, halo, blocks
    )
