"""Reproduce a study from start to plot.

    python tools/reproduce.py data_efficiency --scale tiny
    python tools/reproduce.py data_efficiency --system thermals --sizes 1,6,12,24,48,96 --modes prepost,all \
        --starts pretrained,random --seeds 3 --scale paper --pretrained runs/NAME --launcher "deepspeed --num_gpus 8" \
        --set train.accumulation=8

`data_efficiency` fine-tunes on more and more trajectories, from a pretrained model and from random weights, and scores each run
on the same test trajectories (the paper's figures 5 and 6). It goes on where it was interrupted. The scale `tiny` simulates its
data and starts from models/matey-micro where --pretrained names nothing else; `paper` has the paper's settings and expects its
data in data/. Its batch of 256 is 4 a rank, times the ranks that --launcher starts, times train.accumulation.

    python tools/reproduce.py peers --seconds 110 --seeds 3 --out runs/peers

`peers` trains MATEY and other models on the same windows at the same cost: a stencil fitted by least squares, a U-Net and an
FNO (pip install 'matey[baselines]') for each system, MATEY for each system and jointly on all, for so many CPU seconds a
system. It prints NRMSE over that of persistence with mean and deviation over the seeds, and writes peers.csv and peers.png.
Several costs, as in --seconds 30,110, make curves. The data is that of `make demo`. It goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from matey.config import ConfigError, load_config, load_resolved
from matey.evaluate.data_efficiency import (
    Point,
    check_data,
    points_of,
    scores,
    study_figure,
    trajectories_for,
)
from matey.evaluate.peers.fno import fno_class
from matey.evaluate.peers.points import points_of as peer_points
from matey.evaluate.peers.points import rows_of
from matey.evaluate.peers.running import Comparison, paths_by_system
from matey.evaluate.peers.running import run_point as run_peer
from matey.evaluate.peers.table import peers_figure, peers_table
from matey.evaluate.study import StudyError, call, claim, write_table
from matey.train.trained_parts import TRAINED

ROOT = Path(__file__).resolve().parents[1]
SYSTEMS = {"thermals": "colliding_thermals", "mhd": "mhd_cavity"}
IN_THE_BOX = ROOT / "models" / "matey-micro"


@dataclass(frozen=True)
class Scale:
    """How large a study is.

    Attributes:
        config: path of the run YAML of every point.
        sizes: numbers of training trajectories by system.
        seeds: number of runs of each point.
        settings: overrides of the YAML.
        system_settings: overrides of single systems, from the model in the box.
        mode_settings: overrides of single modes.
        max_windows: largest number of windows to score each run on, per lead.
    """

    config: str
    sizes: dict[str, str]
    seeds: int
    settings: tuple[str, ...] = ()
    system_settings: tuple[tuple[str, tuple[str, ...]], ...] = ()
    mode_settings: tuple[tuple[str, tuple[str, ...]], ...] = ()
    max_windows: int = 1000


MIN_SIMULATED = 30  # trajectories of the scale tiny: 24 to train on
SCALES = {
    "tiny": Scale(
        "launch/runs/finetune_thermals_micro.yaml",
        sizes=dict.fromkeys(SYSTEMS, "1,6,24"),
        seeds=3,
        settings=("model.fields=null", "train.steps=200", "train.checkpoint_every=100"),
        system_settings=(
            ("thermals", ("finetune.new_rows_of={velocity_z: copy:velocity_y}",)),
            ("mhd", ("finetune.new_rows_of={magnetic_x: copy:velocity_x, magnetic_y: copy:velocity_y}",)),
        ),
        max_windows=200,
    ),
    "paper": Scale(
        "launch/runs/finetune_{system}.yaml",
        sizes={"thermals": "1,6,12,24,48,96", "mhd": "1,6,12,24"},
        seeds=3,
        mode_settings=(("all", ("train.learning_rate=5.0e-5", "train.weight_decay=0")),),
    ),
}


def main() -> int:
    """Run from the command line; 0 if all went well, 2 for a mistake that the printed sentence explains."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = top.add_subparsers(required=True, metavar="STUDY")
    study = what.add_parser("data_efficiency", help="error against the number of training trajectories")
    study.add_argument("--system", choices=SYSTEMS, default="thermals", help="system to learn (thermals)")
    study.add_argument("--scale", choices=SCALES, default="tiny", help="settings and size (tiny)")
    sizes = "tiny: 1,6,24; paper: 1,6,12,24,48,96 of thermals, 1,6,12,24 of mhd"
    study.add_argument("--sizes", metavar="N,N", help=f"training trajectories ({sizes})")
    study.add_argument(
        "--modes", default="prepost,all", help=f"parts that are trained: {', '.join(TRAINED)} (prepost,all)"
    )
    study.add_argument("--starts", default="pretrained,random", help="initial weights (pretrained,random)")
    study.add_argument("--seeds", type=int, metavar="N", help="runs of each point (3)")
    study.add_argument("--pretrained", metavar="RUN_OR_MODEL", help="run or model to start from")
    study.add_argument("--deepspeed_config", default="ds_configs/zero1.json", help="JSON of DeepSpeed (%(default)s)")
    study.add_argument("--launcher", default=sys.executable, help="command before launch/finetune.py (this Python)")
    study.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of every fine-tuning"
    )
    study.add_argument(
        "--out",
        type=Path,
        default=Path("runs/data_efficiency"),
        metavar="DIR",
        help="folder of the study (%(default)s)",
    )
    study.set_defaults(run=data_efficiency)
    add_peers(what)
    args = top.parse_args()
    try:
        args.run(args)
    except (StudyError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: Cannot write to {args.out} ({error.strerror}); choose another --out.", file=sys.stderr)
        return 2
    return 0


def add_peers(what: argparse._SubParsersAction) -> None:
    """Add the flags of the comparison with other models."""
    study = what.add_parser("peers", help="MATEY beside a stencil, a U-Net and an FNO of the same cost")
    data = "data/demo/shallow_water,data/demo/diffusion_reaction"
    study.add_argument("--seconds", default="110", metavar="S,S", help="seconds of training per system (110)")
    study.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each point (3)")
    study.add_argument("--data", default=data, metavar="PATH,PATH", help="one data set for each system (%(default)s)")
    study.add_argument("--systems", metavar="NAME,NAME", help="systems of the data to compare on (all)")
    study.add_argument(
        "--config", default="launch/runs/demo.yaml", metavar="YAML", help="MATEY's settings (%(default)s)"
    )
    study.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of the YAML")
    study.add_argument(
        "--max-windows", type=int, default=200, metavar="N", help="windows to score on, per system and lead (200)"
    )
    devices = "cpu: costs are CPU seconds, on one thread; cuda: GPU seconds (cpu)"
    study.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help=devices)
    study.add_argument(
        "--out", type=Path, default=Path("runs/peers"), metavar="DIR", help="folder of the study (%(default)s)"
    )
    study.set_defaults(run=peers)


def peers(args: argparse.Namespace) -> None:
    """Train and score the points that are not done yet; write table and plot after each."""
    for flag, value in (("--seeds", args.seeds), ("--max-windows", args.max_windows)):
        if value < 1:
            raise StudyError(f"{flag} must be 1 or more, got {value}.")
    paths = paths_by_system(args.data.split(","), ROOT, args.systems and args.systems.split(","))
    points = peer_points(tuple(paths), numbers("--seconds", args.seconds), args.seeds)
    out = args.out.absolute()
    comparison = Comparison(ROOT, out, ROOT / args.config, tuple(args.set), paths, args.device, args.max_windows)
    comparison.run_config(points[0])
    fno_class()
    settings = {key: getattr(args, key) for key in ("config", "set", "device", "max_windows")}
    claim(out, {"study": "peers", "data": paths, **settings})
    torch.set_num_threads(1)
    rows = []
    for point in tqdm(points, desc="peers", unit="run", disable=None):
        if not comparison.is_done(point):
            run_peer(comparison, point)
        rows += rows_of(point, comparison.folder(point))
        write_table(out / "peers.csv", rows)
        unit = "GPU seconds" if args.device == "cuda" else "CPU seconds"
        peers_figure(rows, unit).savefig(out / "peers.png", dpi=150)
    print(peers_table(rows))
    print(f"Table: {out / 'peers.csv'}   plot: {out / 'peers.png'}")


def data_efficiency(args: argparse.Namespace) -> None:
    """Run the points that are not done yet; write table and plot after each."""
    scale = SCALES[args.scale]
    modes, starts = chosen("--modes", args.modes, TRAINED), chosen("--starts", args.starts, ("pretrained", "random"))
    sizes = numbers("--sizes", args.sizes or scale.sizes[args.system])
    points = points_of(starts, modes, sizes, args.seeds or scale.seeds)
    out = args.out.absolute()
    if args.scale != "tiny" and args.pretrained is None and "pretrained" in starts:
        raise StudyError("--scale paper needs --pretrained RUN_OR_MODEL.")
    config = load_config(ROOT / scale.config.format(system=args.system), args.set)
    if args.scale == "tiny":
        trajectories = max(MIN_SIMULATED, trajectories_for(sizes[-1], config.data))
    else:
        trajectories = check_data(config.data, ROOT, sizes[-1])
    study = {"system": args.system, "scale": args.scale, "pretrained": args.pretrained}
    claim(out, {**study, "trajectories": trajectories, "set": args.set})
    if args.scale == "tiny":
        simulate(out, SYSTEMS[args.system], trajectories, frames=51)
    pretrained = str(Path(args.pretrained or IN_THE_BOX).absolute())
    rows = []
    for point in tqdm(points, desc="data_efficiency", unit="run", disable=None):
        if not (out / "points" / point.name / "report.html").exists():
            run_point(point, args, pretrained, out)
        rows += scores(point, out / "points" / point.name / "metrics.json")
        write(out, rows, args.system)
    print(f"Table: {out / 'data_efficiency.csv'}   plot: {out / 'data_efficiency.png'}")


def run_point(point: Point, args: argparse.Namespace, pretrained: str, out: Path) -> None:
    """Fine-tune and evaluate one point; an interrupted one goes on from its newest checkpoint."""
    folder = out / "points" / point.name
    call(out, point.name, finetuning(point, args, pretrained, out), ROOT)
    lead_max = load_resolved(folder / "config.yaml").data.lead_max
    command = [sys.executable, "launch/evaluate.py", "--checkpoint", str(folder), "--out", str(folder)]
    command += ["--leads", f"1,{lead_max}", "--rollout", "0", "--max-windows", str(SCALES[args.scale].max_windows)]
    call(out, point.name, command, ROOT)


def finetuning(point: Point, args: argparse.Namespace, pretrained: str, out: Path) -> list[str]:
    """Return the command that fine-tunes one point."""
    scale = SCALES[args.scale]
    config = ROOT / scale.config.format(system=args.system)
    settings = [
        f"output.dir={out / 'points' / point.name}",
        f"train.seed={point.seed}",
        *scale.settings,
        *(dict(scale.system_settings).get(args.system, ()) if pretrained == str(IN_THE_BOX) else ()),
        *dict(scale.mode_settings).get(point.mode, ()),
        *args.set,
    ]
    if args.scale == "tiny":
        settings.append(f"data.sets=[{{path: {out / 'data' / SYSTEMS[args.system]}}}]")
    if point.start == "random" and (stated := stated_config(point, out)) is not None:
        config, settings = stated, [setting for setting in settings if not setting.startswith("model.")]
    command = [*shlex.split(args.launcher), "launch/finetune.py", "--deepspeed_config", args.deepspeed_config]
    command += ["--config", str(config), "--pretrained", "none" if point.start == "random" else pretrained]
    command += ["--train", point.mode, "--trajectories", str(point.trajectories), "--resume"]
    return [*command, *(part for setting in settings for part in ("--set", setting))]


def stated_config(point: Point, out: Path) -> Path | None:
    """Return the configuration of the run from the pretrained model that is otherwise the same, or of one of the same mode.

    It states network and vocabulary in full, and has the rates of its mode.
    """
    twin = replace(point, start="pretrained")
    patterns = (twin.name, f"pretrained-{point.mode}-{point.trajectories}-*", f"pretrained-{point.mode}-*")
    found = (path for name in patterns for path in sorted((out / "points").glob(f"{name}/config.yaml")))
    return next(found, None)


def simulate(out: Path, system: str, trajectories: int, frames: int) -> None:
    """Simulate a small set, unless it is there."""
    command = [sys.executable, "tools/simulate.py", system, "--out", str(out / "data" / system), "--resolution", "64"]
    call(out, f"simulate-{system}", [*command, "--trajectories", str(trajectories), "--frames", str(frames)], ROOT)


def write(out: Path, rows: Sequence[dict], system: str) -> None:
    """Write table and plot."""
    write_table(out / "data_efficiency.csv", rows)
    study_figure(rows, system).savefig(out / "data_efficiency.png", dpi=150)


def chosen(flag: str, text: str, known: Sequence[str]) -> list[str]:
    """Read comma-separated names."""
    names = text.split(",")
    for name in names:
        if name not in known:
            raise StudyError(f"{flag} takes {', '.join(known)}, separated by commas; got {name!r}.")
    return names


def numbers(flag: str, text: str) -> list[int]:
    """Read comma-separated whole numbers above 0."""
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise StudyError(f"{flag} takes whole numbers such as 1,6,12, got {text!r}.")
    return sorted({int(part) for part in parts})


if __name__ == "__main__":
    sys.exit(main())
