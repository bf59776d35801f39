"""Calls of a step that make the host wait for a GPU, counted on a CPU; as a program, those of forward, loss and backward.

The micro-batch is prepared before the step, so that all tensors of these parts are ones that a GPU would hold. On a GPU,
`torch.cuda.set_sync_debug_mode` tells, see `tests/gpu/step_case.py`.
"""

import json
import sys
from collections import Counter
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from matey.benchmark.step import Case
from matey.config.schema import LOSSES
from matey.model.prepare import prepare
from matey.parallel import collectives
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.sequence import share_samples
from matey.train.ahead import for_loss
from matey.train.loop import Tally
from matey.train.loss import LossScale, training_loss

OPERATIONS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount", "_unique2", "unique_dim"}
MASKED = {"index", "index_put", "index_put_", "_index_put_impl_"}
METHODS = "tolist", "numpy", "cpu", "__array__"  # on a CPU, PyTorch's dispatcher does not see them


class Waits(TorchDispatchMode):
    """Counts calls whose result, or its size, the host needs, and copies to main memory."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()
        self._patches = [patch.object(Tensor, name, self._counted(getattr(Tensor, name))) for name in METHODS]

    def __enter__(self):
        for each in self._patches:
            each.start()
        return super().__enter__()

    def __exit__(self, *about):
        for each in self._patches:
            each.stop()
        return super().__exit__(*about)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        is_masked = name in MASKED and any(index is not None and index.dtype == torch.bool for index in args[1])
        self.calls[name] += name in OPERATIONS or is_masked
        return func(*args, **(kwargs or {}))

    def _counted(self, method):
        def call(tensor, *args, **kwargs):
            self.calls[method.__name__] += 1
            return method(tensor, *args, **kwargs)

        return call


def waits_of(case, loss):
    """Return the calls that wait in the second step of a model, which all ranks share."""
    model, scales = case.make_model().train(), {"benchmark": LossScale()}
    if collectives.world_size() > 1:
        share_samples(model)
    group = model.sequence_group
    ready = for_loss(prepare([case.make_batch()], model.config, group.ranks), LOSSES[loss], group.ranks)
    tally = Tally(scales, torch.device("cpu"))
    for _ in range(2):  # the first makes constants
        waits = Waits()
        with waits:
            forecasts = model(ready)
            total, per_sample = training_loss(forecasts, group, scales, LOSSES[loss])
            total.backward()
            tally.add(forecasts, per_sample)
    return +waits.calls


if __name__ == "__main__":
    start_processes(find_environment(), timeout=120, threads=1)
    for settings, loss in json.loads(sys.argv[1]):
        found = sum(collectives.from_all_ranks(waits_of(Case.from_json(settings), loss)), Counter())
        if collectives.rank() == 0:
            sys.stdout.write(f"case {json.dumps(found)}\n")
    stop_processes()
