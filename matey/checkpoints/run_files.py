"""The names of the files and folders in a run's folder; every module that writes or reads one takes its name from here.

runs/demo/
config.yaml  ds_config.json       what the run does, as resolved
about.txt  commands.txt  split.jsonl  seen.txt  files.index
metrics.jsonl                     one line per logged step
checkpoints/step_000100/  latest  DeepSpeed's; `latest` names the newest whole one
model/config.json ...             the best weights, in Hugging Face's format
metrics.json  report.html         what an evaluation adds

The folder of a peer, see `matey.checkpoints.peer_folder`, has split.jsonl and seen.txt too, beside peer.json and
peer.safetensors.
"""

from __future__ import annotations

import re

CONFIG = "config.yaml"
DS_CONFIG = "ds_config.json"
METRICS = "metrics.jsonl"
ABOUT = "about.txt"  # what the run printed on its data, model and batch before the first step
COMMANDS = "commands.txt"  # the commands that started and resumed the run, one per line
SPLIT = "split.jsonl"  # the trajectories of each part of the data, see `matey.data.split_record`
SEEN = "seen.txt"  # fingerprints of the training trajectories, see `matey.data.seen`
INDEX = "files.index"  # what was found in the data files, see `matey.data.index`
CHECKPOINTS = "checkpoints"
LATEST = "latest"
OWNER = "run.txt"  # in a checkpoints folder behind a link: path of the run's folder, see `matey.train.own_folder`
STEP = re.compile(r"step_(\d{6,})")  # the names that `step_name` gives
MODEL = "model"
MODEL_BEFORE, MODEL_AFTER = "model.old", "model.new"  # they exist while the best weights are replaced
MODEL_CONFIG = "config.json"
# Files that a conversion copies.
RUN_FILES = (CONFIG, DS_CONFIG, METRICS, ABOUT, COMMANDS, SPLIT, SEEN, INDEX, MODEL)

PEER = "peer.json"  # a peer's kind, system, fields and history
PEER_WEIGHTS = "peer.safetensors"

LOCK = "matey.lock"  # names the run that is using the folder, see `matey.train.lock`

RECORDS = "metrics.json"
REPORT = "report.html"


def step_name(step: int) -> str:
    """Return the name of the checkpoint that is saved after a step."""
    return f"step_{step:06d}"
