"""Run by a launcher: engines of every ZeRO stage that save checkpoints, or go on from what others saved.

Prints a line per case on rank 0: its name and what was seen.
"""

import json
import sys
from itertools import pairwise
from pathlib import Path

import torch

from matey.checkpoints.convert import convert
from matey.checkpoints.source import find_checkpoint
from matey.config import FinetuneSection, parse_config
from matey.config.schema import FINETUNE_MODES
from matey.model.configuration import model_config
from matey.model.matey import MateyModel
from matey.parallel.collectives import barrier, rank, world_size
from matey.parallel.engine import build_engine, take_step, whole_parameters
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.exchange import Topology
from matey.parallel.sequence import DistributedSequenceGroup
from matey.train.checkpoint import MovingAverage, RunError, RunFolder
from matey.train.loss import training_loss
from tests.support.models import VOCABULARY
from tests.support.training_cases import GLOBAL_BATCH, SCALES, samples_of

SAVED_AT = 3
FLOAT32_GRADIENTS = {"data_types": {"grad_accum_dtype": "fp32"}}
CPU = {"device": "cpu"}
# name: ZeRO stage, what is trained, what else is in the DeepSpeed configuration
KINDS = {
    "zero0": (0, "all", {}),
    "zero1": (1, "all", {}),
    "zero2": (2, "all", {}),
    "zero3": (3, "all", {}),
    "frozen1": (1, "prepost", {}),
    "frozen3": (3, "prepost", {}),
    "lora0": (0, "lora", {}),
    "lora1": (1, "lora", {}),
    "lora3": (3, "lora", {}),
    "offload2": (2, "all", {"zero_optimization": {"stage": 2, "offload_optimizer": CPU}}),
    "offload3": (3, "all", {"zero_optimization": {"stage": 3, "offload_optimizer": CPU}}),
    "offload_all": (3, "all", {"zero_optimization": {"stage": 3, "offload_optimizer": CPU, "offload_param": CPU}}),
    "muon0": (0, "all", {}),
    "muon1": (1, "all", {}),
    "muon3": (3, "all", {}),
    "muon_offload2": (2, "all", {"zero_optimization": {"stage": 2, "offload_optimizer": CPU}}),
    "muon_bf16_1": (1, "all", {"bf16": {"enabled": True}, **FLOAT32_GRADIENTS}),
    "bf16_1": (1, "all", {"bf16": {"enabled": True}, **FLOAT32_GRADIENTS}),
    "bf16_2": (2, "all", {"bf16": {"enabled": True}}),
    "bf16_3": (3, "all", {"bf16": {"enabled": True}}),
}


def run_config(folder, size, micro, optimizer):
    tree = {
        "model": {"size": "micro", "fields": list(VOCABULARY)},
        "tokens": {"set": "mix", "patches": [[1, 1, 8, 8], [1, 1, 4, 4]]},
        "data": {"sets": [{"path": "data/made_up"}], "history": 2},
        "train": {
            "steps": 9,
            "micro_batch": micro,
            "weight_decay": 0.1,
            "ema": 0.6,
            "clip_norm": 0.05,
            "optimizer": optimizer,
        },
        "parallel": {"sequence_parallel_size": size},
        "output": {"dir": str(folder)},
    }
    return parse_config(tree, "the test")


class Training:
    """An engine that can take steps of a stream that is the same on any number of ranks."""

    def __init__(self, kind, folder, size=1, seed=0):
        stage, trained, more = KINDS[kind]
        self.topology = Topology(rank(), world_size(), size, 3)
        self.micro = GLOBAL_BATCH // self.topology.num_data_ranks
        self.run = run_config(folder, size, self.micro, "muon" if kind.startswith("muon") else "adamw")
        torch.manual_seed(seed)
        model = MateyModel(model_config(self.run))
        for parameter in (model.cells_after.field_out, *model.giving.parameters()):
            torch.nn.init.normal_(parameter, std=0.5)
        if size > 1:
            model.sequence_group = DistributedSequenceGroup(self.topology)
        FINETUNE_MODES[trained](model, FinetuneSection(lora_rank=4, lora_alpha=8.0))
        self.deepspeed_config = {"zero_optimization": {"stage": stage}, **more}
        self.engine = build_engine(model.train(), self.run.train, self.deepspeed_config)
        self.average = MovingAverage(self.engine, self.run.train.ema)
        self.folder = RunFolder(folder)

    def step(self, step):
        share = samples_of(step, 1, self.micro, 0, self.topology.data_rank, self.topology.num_data_ranks)
        share = [batch.to(self.engine.device) for batch in share]
        loss, _ = training_loss(self.engine(share), self.engine.module.sequence_group, SCALES)
        self.engine.backward(loss * self.topology.sequence_parallel_size)
        take_step(self.engine)
        self.average.update(step)
        mean = loss.detach().clone()
        torch.distributed.all_reduce(mean)
        return mean.item() / world_size()

    def weights(self):
        weights = whole_parameters(self.engine)
        return {name: value.detach().float().clone() for name, value in weights.items()}

    def save(self, step):
        self.folder.save(self.engine, step, {"best": 0.25}, 2, self.average)


def off(one, two):
    """The largest difference of two models, relative to the weights of the first; rank 0 alone has them."""
    return max((((one[name] - two[name]).norm() / (one[name].norm() + 1e-12)).item() for name in one), default=0)


def save(kind, root):
    """Train, save, convert, and go on; see what the average was beside one that is taken from whole weights."""
    training = Training(kind, root / kind)
    training.folder.start(training.run, training.deepspeed_config)
    history = [training.weights()]
    for step in range(1, SAVED_AT + 1):
        training.step(step)
        history.append(training.weights())
        if step == SAVED_AT - 1:
            training.save(step)
    training.save(SAVED_AT)
    expected = history[0]
    for step, (_, weights) in enumerate(pairwise(history), start=1):
        decay = min(0.6, (1 + step) / (10 + step))
        expected = {name: decay * expected[name] + (1 - decay) * weights[name] for name in expected}
    with training.average.in_place():
        average = training.weights()
    seen = {
        "average_off": off(expected, average),
        "average_moved": off(history[-1], average),
        "restored": off(history[-1], training.weights()),
    }
    training.folder.save_model(training.engine)
    if rank() == 0:
        source, run = find_checkpoint(root / kind)
        convert(source, run, "universal", root / f"{kind}_universal", average=False, dtype="float32")
    barrier()
    seen["losses"] = [training.step(step) for step in (SAVED_AT + 1, SAVED_AT + 2)]
    training.engine.destroy()
    return seen


def resume(kind, saved, size, root):
    """Go on as ``kind`` from what lies in ``saved``; save before the first step, to see what was loaded."""
    training = Training(kind, root / saved, size, seed=1)
    try:
        state = training.folder.load(training.engine, training.run, SAVED_AT, training.average)
    except RunError as error:
        training.engine.destroy()
        return {"refused": str(error)}
    again = RunFolder(root / f"{saved}_to_{kind}_{world_size()}_{size}")
    again.start(training.run, training.deepspeed_config)
    if rank() == 0:
        for step in (1, 9):
            (again.checkpoints / f"step_{step:06d}").mkdir(parents=True)
    barrier()
    again.save(training.engine, SAVED_AT, {"best": state["best"]}, 1, training.average)
    losses = [training.step(step) for step in (SAVED_AT + 1, SAVED_AT + 2)]
    inner = training.engine.optimizer if KINDS[kind][0] == 0 else training.engine.optimizer.optimizer
    seen = {
        "losses": losses,
        "again": str(again.path),
        "decays": [group["weight_decay"] for group in inner.param_groups],
        "adam_steps": sorted({int(state["step"]) for state in inner.state.values()}),
        "best": state["best"],
        "kept": [path.name for path in again.checkpoints.glob("step_*")],
    }
    training.engine.destroy()
    return seen


def main(cases, root):
    start_processes(find_environment(), timeout=120, threads=1)
    for what, *arguments in cases:
        seen = save(*arguments, root) if what == "save" else resume(*arguments, root)
        if rank() == 0:
            sys.stdout.write(f"case {json.dumps([what, arguments, seen])}\n")
            sys.stdout.flush()
    stop_processes()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
