"""Numbers that are sent between the host and its device without either waiting for the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class Late:
    """Numbers that the device is still computing, copied to main memory without waiting and read a step later."""

    def __init__(self, values: Tensor, then: Callable[[Any], Any] = lambda values: values) -> None:
        """Start the copy of the values; the host goes on. What `read` returns is ``then`` of the values."""
        self._then = then
        on_gpu = values.device.type == "cuda"
        # A copy to memory that is not pinned would wait.
        self._here = torch.empty(values.shape, dtype=values.dtype, pin_memory=on_gpu)
        self._here.copy_(values.detach(), non_blocking=True)
        self._arrival = torch.cuda.Event() if on_gpu else None
        if self._arrival is not None:
            self._arrival.record()

    def read(self) -> Any:  # noqa: ANN401
        """Return the values as Python's numbers, in nested lists, or what is made of them; wait if they have not come yet."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return self._then(self._here.tolist())


def sent(values: Sequence[float], device: torch.device) -> Tensor:
    """Send numbers of the host to a device, as float64 ``(n,)``; the host goes on."""
    here = torch.tensor(values, dtype=torch.float64)
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here
