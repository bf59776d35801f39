"""The exponential moving average of the weights; every rank keeps it only for the master weights that it owns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from matey.checkpoints.source import average_file
from matey.parallel.collectives import rank
from matey.parallel.master import Piece, masters, refresh_module
from matey.parallel.package import Engine


class MovingAverage:
    """An average of the trained weights over the steps, in float32.

    After step s, average <- d average + (1 - d) weights, with d = min(decay, (1 + s) / (10 + s)), so that the initial
    weights are soon forgotten. A decay of 0 keeps no average, and everything here does nothing.
    """

    def __init__(self, engine: Engine, decay: float) -> None:
        self._engine, self._decay = engine, decay
        self._masters = masters(engine) if decay else []
        # Without ZeRO every rank owns all weights, and rank 0 saves their average.
        self._saver = 0 if engine.zero_optimization_stage() == 0 else rank()
        self._averages = [values.clone() for master in self._masters for _, values in master]

    @property
    def is_kept(self) -> bool:
        """Whether an average is kept."""
        return self._decay > 0

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the weights after ``step``."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for _, weights, average in self._parts():
            average.lerp_(weights, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Exchange the weights and the average within the block, and restore both to the last bit; all ranks must enter.

        After an error they stay exchanged: it ends the run, and a rank that fails alone must not wait for the others.
        """
        self._exchange()
        yield
        self._exchange()

    def save(self, folder: Path, step: int) -> None:
        """Write this rank's part of the average beside the other shards of a checkpoint."""
        if self.is_kept and rank() == self._saver:
            starts = {piece.name: str(piece.start) for piece, _, _ in self._parts()}
            averages = {piece.name: average for piece, _, average in self._parts()}
            save_file(averages, folder / average_file(rank()), {**starts, "step": str(step)})

    def load(self, folder: Path) -> None:
        """Read this rank's part of the average from a checkpoint; if there is none, begin with the engine's weights."""
        path = folder / average_file(self._saver)
        if not path.is_file():
            self.set_whole(None)
            return
        with safe_open(path, "pt") as file:
            for piece, _, average in self._parts():
                average.copy_(file.get_tensor(piece.name))

    def set_whole(self, read: Callable[[str], Tensor] | None) -> None:
        """Set the average from a function that reads whole parameters by name; without it, from the engine's weights."""
        for piece, weights, average in self._parts():
            average.copy_(read(piece.name).flatten()[piece.start : piece.start + piece.length] if read else weights)

    def _parts(self) -> Iterator[tuple[Piece, Tensor, Tensor]]:
        """Yield every piece that this rank owns with its weights and their average."""
        averages = iter(self._averages)
        for master in self._masters:
            for piece, weights in master:
                yield piece, weights, next(averages)

    def _exchange(self) -> None:
        if not self._decay:
            return
        for _, weights, average in self._parts():
            weights_before = weights.clone()
            weights.copy_(average)
            average.copy_(weights_before)
        refresh_module(self._engine)
