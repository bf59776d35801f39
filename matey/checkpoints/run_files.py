"""Names of files in a run's folder that the run writes and a conversion takes along."""

from __future__ import annotations

ABOUT = "about.txt"  # what the run said of its data, model and batch before the first step
COMMANDS = "commands.txt"  # how it was started and resumed, a line each
MODEL = "model"  # the best weights
SPLIT = "split.jsonl"  # what each part of the data held, see `matey.data.split_record`
SEEN = "seen.txt"  # fingerprints of the trajectories that it was trained on, see `matey.data.seen`
INDEX = "files.index"  # what was found in the data files, see `matey.data.index`
OF_A_RUN = ("config.yaml", "ds_config.json", "metrics.jsonl", ABOUT, COMMANDS, SPLIT, SEEN, INDEX, MODEL)
