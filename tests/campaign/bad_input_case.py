"""One kind of bad input: what spoils the folder, what is started then, and what the one sentence has to say."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PRETRAIN = "launch/pretrain.py --deepspeed_config {here}/ds.json --config {here}/run.yaml"
HERE = "--set output.dir={here}/fresh --set 'data.sets=[{path: {here}/swe}]'"
FRESH = f"{PRETRAIN} {HERE}"
RESUME = f"{PRETRAIN} --resume --set train.steps=10"
FINETUNE = f"{FRESH.replace('pretrain', 'finetune')}"
EVALUATE = "launch/evaluate.py --leads 1 --rollout 2 --out {here}/report --checkpoint {here}/run"
CONVERT = "tools/convert_checkpoint.py {here}/run --out {here}/converted --to"
INSPECT = "tools/inspect_data.py"
SHOW = "tools/show_tokens.py {here}/swe --config {here}/run.yaml --out"
SIMULATE = "tools/simulate.py shallow_water --trajectories 1 --resolution 16 --frames 3 --out {here}/made"
PLAN = "tools/plan.py --config {here}/run.yaml --deepspeed_config {here}/ds.json"
BENCHMARK = "tools/benchmark.py step --model micro"
NAME = "<script>alert('x')</script> \"y\" ü 数据"


@dataclass(frozen=True)
class Case:
    """One kind of bad input.

    Attributes:
        name: what is bad, in a word or two.
        command: the program and its flags, as one would type them.
        words: part of the sentence that says what is wrong.
        prepare: function that spoils the folder, if not the command alone is bad.
        code: the exit code; the inspection's is 1 and its sentences are called faults.
        environment: variables of the process beside the usual ones.
        num_ranks: the number of ranks, which together say it once.
    """

    name: str
    command: str
    words: str
    prepare: Callable[[Path], object] = field(default=lambda here: None)
    code: int = 2
    environment: dict[str, str] = field(default_factory=dict)
    num_ranks: int = 1

    def words_of(self, here: Path) -> list[str]:
        """Return the words of the command."""
        return [word.replace("{here}", str(here)) for word in shlex.split(self.command)]
