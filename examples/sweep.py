"""Search the settings of a run with Optuna (pip install optuna); trials whose validation falls behind are ended early.

    python examples/sweep.py --config demo --trials 20 --out runs/sweep --set train.steps=400 --set train.validate_every=50

A trial is a run in its own folder. Its validations are read from metrics.jsonl while it trains. Optuna's median pruner ends a
trial whose error is above the median of the others at the same step. The study is a file in --out: the same command continues
it. The function `suggest` says what is searched: change it to your question.
`--launcher "deepspeed --num_gpus 4 --module"` trains each trial on several processes.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna


def suggest(trial: optuna.Trial) -> dict[str, object]:
    """Return the settings that a trial tries, by their keys in the run YAML."""
    return {
        "train.learning_rate": trial.suggest_float("train.learning_rate", 3e-4, 1e-2, log=True),
        "train.weight_decay": trial.suggest_float("train.weight_decay", 1e-4, 1e-1, log=True),
        "model.channels": trial.suggest_categorical("model.channels", [16, 24, 32]),
        "tokens.refine": trial.suggest_float("tokens.refine", 0.02, 0.5, log=True),
    }


def validations(folder: Path) -> list[tuple[int, float]]:
    """Return step and error of each validation that a run has logged so far."""
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []  # the last may not be whole yet
    return [(line["step"], line["valid_vrmse"]) for line in map(json.loads, lines) if "valid_vrmse" in line]


def objective(trial: optuna.Trial, args: argparse.Namespace) -> float:
    """Train with what a trial tries and return its best validation error."""
    folder = args.out / f"trial_{trial.number:03d}"
    settings = [*args.set, *(f"{key}={value}" for key, value in suggest(trial).items()), f"output.dir={folder}"]
    command = [*shlex.split(args.launcher), "matey", "pretrain", "--deepspeed_config", args.deepspeed_config]
    command += ["--config", args.config, *(word for setting in settings for word in ("--set", setting))]
    reported = 0
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / f"trial_{trial.number:03d}.log").open("w") as log:
        run = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            while True:
                ended = run.poll() is not None  # before the log is read: what comes after is all there is
                found = validations(folder)
                for step, error in found[reported:]:
                    trial.report(error, step)
                reported = len(found)
                if ended:
                    break
                if trial.should_prune():
                    raise optuna.TrialPruned
                time.sleep(1)
        finally:
            if run.poll() is None:
                run.send_signal(signal.SIGTERM)  # it saves, and can be resumed
                run.wait()
    if run.returncode != 0 or not found:
        raise RuntimeError(f"Trial {trial.number} ended with {run.returncode}; see {log.name}.")
    return min(error for _, error in found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="run YAML, or the name of one that comes with the program")
    parser.add_argument("--deepspeed_config", default="zero1", help="JSON of DeepSpeed (%(default)s)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a value in every trial"
    )
    parser.add_argument("--trials", type=int, default=20, help="number of trials to add (%(default)s)")
    parser.add_argument("--startup", type=int, default=4, help="trials before any is pruned (%(default)s)")
    parser.add_argument(
        "--launcher", default=f"{shlex.quote(sys.executable)} -m", help="command before 'matey' (this Python)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"), help="folder of the study (%(default)s)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name="matey",
        storage=f"sqlite:///{args.out / 'study.db'}",
        load_if_exists=True,
        # Without a seed: the same command again, now or at the same time, is to try other settings.
        sampler=optuna.samplers.TPESampler(constant_liar=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=args.startup),
    )
    study.optimize(lambda trial: objective(trial, args), n_trials=args.trials, catch=(RuntimeError,))
    for trial in sorted(study.trials, key=lambda trial: trial.value or float("inf")):
        steps = max(trial.intermediate_values, default=0)
        error = "-" if trial.value is None else f"{trial.value:.4f}"
        print(f"trial {trial.number:3}  {trial.state.name:9} step {steps:6}  VRMSE {error:8}  {trial.params}")
    if not study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)):
        print(f"No trial came to its end; see the logs in {args.out}.")
        return 1
    print("best:", " ".join(f"--set {key}={value}" for key, value in study.best_params.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
