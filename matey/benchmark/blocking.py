"""Counts the calls of a step that make the host wait for a GPU, on any machine.

A host that launches work for a GPU runs ahead of it until it asks for a result that the GPU has to compute first: a count of
nonzeros, a value, a copy to main memory. On a machine without a GPU such calls cost nothing. They are therefore counted by name
if they touch data that a GPU would hold: the weights, the fields of a micro-batch, and all tensors computed from them.

The ranks of a count are ``torchrun -m matey.benchmark.blocking JSON`` and form one sequence group. Rank 0 prints a line of JSON
for each case, with the largest counts of any rank.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import matey
from matey.benchmark.sequence import Point, points_of_ranks
from matey.benchmark.step import Case
from matey.config import TrainSection
from matey.config.schema import LOSSES
from matey.data.reading import read_parts
from matey.data.trajectories import TrajectorySet
from matey.data.windows import Window
from matey.model.boxes import share_of
from matey.model.matey import MateyModel
from matey.model.nested import Packed, tensors_in
from matey.parallel import collectives
from matey.parallel.engine import build_engine
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.meter import Meter
from matey.parallel.package import Engine
from matey.parallel.sequence import share_samples
from matey.train.ahead import MakeReady, MicroBatch, on_device, together
from matey.train.average import MovingAverage
from matey.train.loop import take_step_of
from matey.train.loss import LossScale
from matey.train.step import TakenStep

WAITING = frozenset(
    ("_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount", "histc", "unique_dim")
    + ("_unique", "_unique2", "unique_consecutive", "unique_dim_consecutive", "is_nonzero", "_linalg_check_errors")
)
"""Operations whose result, or its size, the host needs."""

INDEXING = frozenset(("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"))
"""Operations that search for nonzeros if an index is a mask."""

FROM_DEVICE = frozenset((Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__array__))
"""Methods that copy to main memory; on a CPU, PyTorch's dispatcher does not see them."""

LITERALS = frozenset((torch.tensor, torch.as_tensor, torch.from_numpy, Tensor.new_tensor))
"""Functions that make a tensor from numbers in main memory."""

AUTOGRAD: Any = torch.autograd
_run_backward = AUTOGRAD._engine_run_backward

ROOT = str(Path(matey.__file__).parent)


SCHEMES, TOKEN_SETS = ("vit", "svit", "avit"), {"uniform": (8,), "mix": (16, 8), "mul": (16, 8)}


def blocking_points(ranks: int) -> list[Point]:
    """Count the blocking calls of a step for every scheme and token set, on ranks that form one sequence group.

    Raises:
        RuntimeError: a rank failed; the message holds the end of its output.
    """
    cases = [
        Case("micro", scheme=scheme, tokens=tokens, patches=patches, grid=(64, 64), frames=2, fields=2)
        for scheme, (tokens, patches) in product(SCHEMES, TOKEN_SETS.items())
    ]
    # A loss that looks around a cell has its own plan.
    by_loss = {"nrmse": cases, "gradient": cases[1:2]}
    of_losses = {loss: [case.to_json() for case in chosen] for loss, chosen in by_loss.items()}
    return points_of_ranks("matey.benchmark.blocking", {"cases": of_losses, "stage": 1}, ranks)


class BlockingCalls:
    """A context that counts the blocking calls of this thread by part of the step and by line of code.

    Attributes:
        where: number of calls of each operation from each line of this package, by the part named in `mark`.
    """

    def __init__(self, on_device: Iterable[Tensor]) -> None:
        """Take the tensors that a GPU holds from the start."""
        self.where: dict[str, Counter[str]] = {}
        self._since: Counter[str] = Counter()
        self._held: set[StorageWeakRef] = set()  # a reference prevents reuse of a storage's number
        self._literals: set[StorageWeakRef] = set()
        self.hold(on_device)
        self._modes = _Dispatched(self), _Called(self)

    def _heard_backward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        # Inside a call that a mode handles, PyTorch disables the mode: the hooks of a backward pass would not be seen.
        with self._modes[1]:
            return _run_backward(*args, **kwargs)

    def __enter__(self) -> BlockingCalls:
        """Start counting."""
        for mode in self._modes:
            mode.__enter__()
        AUTOGRAD._engine_run_backward = self._heard_backward
        return self

    def __exit__(self, *about: Any) -> None:  # noqa: ANN401
        """Stop counting; ``about`` holds the error that ended the block, if any."""
        AUTOGRAD._engine_run_backward = _run_backward
        for mode in reversed(self._modes):
            mode.__exit__(*about)

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Note tensors as held by a GPU."""
        self._held.update(map(_storage, tensors))

    def mark(self, part: str) -> None:
        """Assign the calls since the last mark to a ``part``; a part may be named several times."""
        self.where.setdefault(part, Counter()).update(self._since)
        self._since.clear()

    def number(self, *parts: str) -> int:
        """Return the number of blocking calls in some parts."""
        return sum(self.where[part].total() for part in parts if part in self.where)

    def met(self, name: str, inputs: Any, results: Any, *, waits: bool) -> None:  # noqa: ANN401
        """Count an operation that ``waits`` if its inputs are on a GPU; its results are there then, too."""
        tensors = list(_tensors(inputs))
        if not any(map(self.holds, tensors)):
            return
        if waits:
            self._count(name)
        # A tensor made from numbers must be copied to the GPU where it meets a tensor there.
        for literal in {_storage(tensor) for tensor in tensors if tensor.ndim} & self._literals:
            self._count("host to device")
            self._literals.discard(literal)
        self.hold(_tensors(results))

    def moved(self, tensor: Tensor, result: Tensor, *, to_device: bool, waits: bool) -> None:
        """Count a move to a GPU or to main memory if it waits and the tensor was not there yet."""
        self._cross(from_device=self.holds(tensor), to_device=to_device, waits=waits)
        if to_device:
            self.hold([result])

    def copied(self, into: Tensor, values: Tensor, *, waits: bool) -> None:
        """Count a copy of values into a tensor if it waits and only one of the two is on a GPU."""
        is_assigned = values.ndim == 0 and _storage(values) not in self._held | self._literals
        self._cross(from_device=self.holds(values), to_device=self.holds(into), waits=waits and not is_assigned)

    def holds(self, tensor: Tensor) -> bool:
        """Whether a GPU would hold a tensor."""
        return _storage(tensor) in self._held

    def made_there(self, tensor: Tensor, *, waits: bool) -> None:
        """Note a tensor that was made on the device; count the call if it ``waits`` for numbers sent from the host."""
        self._cross(from_device=False, to_device=True, waits=waits)
        self._literals.discard(_storage(tensor))
        self.hold([tensor])

    def made(self, tensor: Tensor) -> None:
        """Note a tensor that was made from numbers."""
        self._literals.add(_storage(tensor))

    def _cross(self, *, from_device: bool, to_device: bool, waits: bool) -> None:
        if waits and from_device != to_device:
            self._count("host to device" if to_device else "device to host")

    def _count(self, name: str) -> None:
        self._since[f"{name} {_place()}"] += 1


class _Dispatched(TorchDispatchMode):
    def __init__(self, calls: BlockingCalls) -> None:
        super().__init__()
        self._calls = calls

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs, calls, name = kwargs or {}, self._calls, func.overloadpacket.__name__
        result = func(*args, **kwargs)
        if name == "lift_fresh" and args[0].ndim:  # a single assigned number becomes a tensor on the target's device
            calls.made(result)
        elif name == "copy_":
            calls.copied(args[0], args[1], waits=not (len(args) > 2 and args[2] or kwargs.get("non_blocking", False)))
        else:
            waits = name in WAITING or (name in INDEXING and _has_mask(args[1]))
            waits = waits or (name == "repeat_interleave" and kwargs.get("output_size") is None)
            calls.met(name, (args, kwargs), result, waits=waits)
        return result


class _Called(TorchFunctionMode):
    def __init__(self, calls: BlockingCalls) -> None:
        super().__init__()
        self._calls = calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs, calls, caller = kwargs or {}, self._calls, sys._getframe(1)
        result = func(*args, **kwargs)
        if func in FROM_DEVICE:
            calls.met("device to host", args, (), waits=True)
        elif func is Tensor.to and (target := _target_of(args[1:], kwargs)) is not None:
            to_device = calls.holds(target) if isinstance(target, Tensor) else _is_device(target, caller)
            calls.moved(args[0], result, to_device=to_device, waits=not kwargs.get("non_blocking", False))
        elif isinstance(result, Tensor) and _is_device(kwargs.get("device"), caller):
            calls.made_there(result, waits=func in LITERALS)
        elif isinstance(result, Tensor) and func in LITERALS:
            calls.made(result)
        return result


def _target_of(args: Iterable[Any], kwargs: dict[str, Any]) -> str | torch.device | Tensor | None:
    """Return the device, or the tensor to match, that `Tensor.to` was given; None if it was given a type only."""
    named = [kwargs[name] for name in ("device", "other") if kwargs.get(name) is not None]
    return next((each for each in (*named, *args) if isinstance(each, str | torch.device | Tensor)), None)


def _is_device(place: str | torch.device | None, caller: FrameType) -> bool:
    """Whether a place is the device that a step computes on.

    Code that means main memory writes ``"cpu"``; code that means the device passes on a variable; DeepSpeed names it.
    """
    is_named = isinstance(place, str) and str(caller.f_globals.get("__name__")).startswith("deepspeed")
    return isinstance(place, torch.device) or is_named


def _has_mask(indices: Iterable[Tensor | None]) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


def _tensors(values: Any) -> Iterator[Tensor]:  # noqa: ANN401
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _storage(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())


def _place() -> str:
    """Return the innermost line of this package on the stack outside this file."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and (not frame.f_code.co_filename.startswith(ROOT) or frame.f_code.co_filename == __file__):
        frame = frame.f_back
    return "elsewhere" if frame is None else f"{frame.f_code.co_filename[len(ROOT) + 1 :]}:{frame.f_lineno}"


WARM_UP = 2
"""Steps before the counted one; the first copies constants to the device and makes the optimizer's state."""

PARTS = ("forward", "backward")


class CountingMeter(Meter):
    """A meter that passes its marks to the counter of blocking calls."""

    def __init__(self, device: torch.device, calls: BlockingCalls) -> None:
        super().__init__(device)
        self._calls = calls

    def mark(self, part: str) -> None:
        """Assign the work since the last mark to a ``part``."""
        super().mark(part)
        self._calls.mark(part)


def main(settings: dict[str, Any]) -> None:
    """Count on all ranks and print the results on rank 0."""
    start_processes(find_environment(), timeout=600, threads=1)
    cases = [(loss, Case.from_json(each)) for loss, of_loss in settings["cases"].items() for each in of_loss]
    for loss, case in cases:
        own = count_step(case, settings["stage"], loss)
        everyone = collectives.from_all_ranks(own)
        most = max(everyone, key=lambda row: (row["forward"] + row["backward"], row["step"]))
        if collectives.rank() == 0:
            about = {"scheme": case.scheme, "tokens": case.tokens, "loss": loss, "ranks": collectives.world_size()}
            sys.stdout.write(f"point {json.dumps(about | most)}\n")
    stop_processes()


def count_step(case: Case, stage: int, loss: str = "nrmse") -> dict[str, Any]:
    """Return the blocking calls of a whole logged step, and of forward and backward alone.

    The micro-batch is prepared before the step, with several ranks from the part that each has read.

    Args:
        case: the model and its micro-batch.
        stage: the ZeRO stage.
        loss: name of the loss.
    """
    model = case.make_model().train()
    if collectives.world_size() > 1:
        share_samples(model)
    group = model.sequence_group
    settings = TrainSection(steps=WARM_UP + 1, micro_batch=case.batch, loss=loss)
    engine = build_engine(model, settings, {"zero_optimization": {"stage": stage}})
    calls = BlockingCalls([])
    meter, average = CountingMeter(engine.device, calls), MovingAverage(engine, 0)
    read = _as_read(case, model, settings)

    def make_ready() -> MicroBatch:
        stream = together(iter([read]), model.config, group.ranks, group.exchange, LOSSES[loss])
        return next(on_device(stream, engine.device))

    def take(ready: MicroBatch, step: int) -> TakenStep:
        return take_step_of(engine, iter([ready]), {"benchmark": LossScale()}, settings, average, step, meter)

    for step in range(1, WARM_UP + 1):
        before = take(make_ready(), step)
    ready = make_ready()
    calls.hold([*_held_by(engine), *tensors_in(ready)])
    with calls:
        take(ready, settings.steps)
        # The loop reads the numbers of the previous step while the device computes.
        before.totals.read(), before.grad_norm.read()
        assert before.reading is not None, "every step is logged"
        before.reading.numbers()
        calls.mark("numbers")
    engine.destroy()
    where = {part: dict(counts.most_common()) for part, counts in calls.where.items() if counts}
    return {**{part: calls.number(part) for part in PARTS}, "step": calls.number(*calls.where), "where": where}


def _as_read(case: Case, model: MateyModel, settings: TrainSection) -> Packed:
    """Return a micro-batch as a worker sends it: prepared or, with several ranks, the part that this rank has read."""
    batch, ranks = replace(case.make_batch(), draw=torch.arange(case.batch)), model.sequence_group.ranks
    make_ready, share = MakeReady(model.config, ranks, settings, is_packed=True), share_of(model.config, ranks)
    if share is None:
        return cast(Packed, make_ready(0, [batch]))
    frames = torch.cat([batch.history, batch.known_target[:, None]], dim=1)  # (b, t, f, z, y, x)
    arrays = {name: frames[:, :, number].numpy() for number, name in enumerate(batch.fields)}
    data = TrajectorySet.from_arrays("benchmark", arrays, spacing=(1.0,) * 3, boundary=("open", "open", "open"))
    parts = read_parts([data], [Window(0, sample, 0, 1) for sample in range(case.batch)], case.frames, share)
    parts = [replace(part, samples=replace(part.samples, draw=batch.draw)) for part in parts]
    return cast(Packed, make_ready(0, parts))


def _held_by(engine: Engine) -> Iterator[torch.Tensor]:
    """Yield the tensors that a GPU holds between steps: weights, and the optimizer's copies and states."""
    yield from engine.module.parameters()
    yield from engine.module.buffers()
    inner = getattr(engine.optimizer, "optimizer", engine.optimizer)
    for group in inner.param_groups:
        yield from group["params"]
    for state in inner.state.values():
        # Adam's step count stays on the host.
        yield from (value for value in state.values() if isinstance(value, torch.Tensor) and value.ndim)
    for value in vars(engine.optimizer).values():  # DeepSpeed's buckets and flat copies
        yield from tensors_in(value)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(json.loads(sys.argv[1]))
