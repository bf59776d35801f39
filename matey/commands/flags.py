"""The commands but for training, each with its flags; what a person can get wrong is checked before the slow imports.

A command's docstring is its help. PyTorch takes seconds to import, so a command imports its work after all checks.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from matey.checkpoints.run_files import CONFIG, first_file, is_peer, is_run, step_folder
from matey.config import load_config, load_deepspeed_config
from matey.config.flags import (
    FlagError,
    RanksParser,
    check_device,
    number,
    path,
    png,
    take_local_rank,
    threads,
    whole,
    wholes,
)
from matey.config.loading import KINDS, configurations, find_shipped, hint_of_file
from matey.mistakes import Mistake, writing
from matey.process.launchers import likely_place, looks_for_all
from matey.process.signals import interrupt_at_signals
from matey.process.start import INTERRUPTED, entry_point


def parser_of(command: Callable[[], int]) -> RanksParser:
    """Return a parser whose help begins with a command's docstring."""
    form = argparse.RawDescriptionHelpFormatter
    return RanksParser(description=inspect.getdoc(command), formatter_class=form, allow_abbrev=False)


def add_forecast(parser: argparse.ArgumentParser, of_data: str) -> None:
    """Add the flags of commands that forecast on the ranks of a launcher or on one device."""
    add = parser.add_argument
    add("--conserve", action="store_true", help="keep mass, momentum, energy, where a system conserves them")
    add("--history", type=whole(1, 1000), metavar="T", help="frames of history; by default those of the training")
    add("--batch", type=whole(1), default=16, metavar="N", help=f"{of_data} predicted together (16)")
    add("--device", default="auto", help="device of one process: auto, cpu, cuda or cuda:1 (auto)")
    add("--threads", type=threads, help="CPU threads; by default PyTorch's choice")
    take_local_rank(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the flag that overrides settings of a run."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of the YAML")


@entry_point
def evaluate() -> int:
    """Evaluate a trained model: errors of single forecasts and of rollouts, as a table, metrics.json and report.html.

        matey evaluate --checkpoint RUN_OR_MODEL --out DIR [--data PATH...]

    Rollouts go in steps of one snapshot ("rollout") and, from the same windows, in steps of the longest lead that the model
    was trained on ("rollout by N", see --rollout-lead). Persistence and extrapolation stand beside the model. A rollout that
    leaves all bounds is reported as diverged.

        matey evaluate --checkpoint runs/demo models/matey-micro --data data/new --out runs/compared

    compares several models on the same windows, of --data or of the first run. Peers that `matey reproduce peers` trained
    may be among them.

    Several ranks, as deepspeed, torchrun, mpirun or srun start them, share out the forecasts, to the numbers of one. With
    --share P groups of P ranks make each forecast together: none of them reads or holds more than its part of the fields.
    """
    parser = parser_of(evaluate)
    add = parser.add_argument
    of_several = "folder of a run, its model/, or a peer; several are compared on the same windows"
    add("--checkpoint", required=True, nargs="+", type=path, metavar="RUN_OR_MODEL", help=of_several)
    add("--data", nargs="+", metavar="PATH", help="files, folders or globs; by default those of the run")
    add("--out", required=True, type=path, metavar="DIR", help="folder for metrics.json and report.html")
    add("--leads", type=wholes(1), default=(1, 5), help="lead times in snapshots, each predicted at once (1,5)")
    add("--rollout", type=whole(0), default=10, metavar="N", help="snapshots of the rollout, with truth; 0: none (10)")
    second = "step of a second rollout in snapshots; 1: none (the longest lead trained on, at most --rollout)"
    add("--rollout-lead", type=whole(1), metavar="N", help=second)
    add("--max-windows", type=whole(1), default=200, metavar="N", help="windows per system and lead (200)")
    add("--split", choices=("all", "train", "valid", "test"), help="part of the data (all of --data, else test)")
    seen = "trajectories of --data that the run trained on, known by their first frames: refused, left out, or scored (refuse)"
    add("--seen", choices=("refuse", "leave_out", "score"), default="refuse", help=seen)
    add("--every", type=whole(1), default=1, metavar="N", help="take every N-th frame of the data as a snapshot (1)")
    add("--means", type=whole(1), default=1, metavar="N", help="take means of N cells along each axis (1)")
    share = "ranks that make a forecast together, each with its part of the fields; errors without pictures (1)"
    add("--share", type=whole(1), default=1, metavar="P", help=share)
    add_forecast(parser, "samples")
    args = parser.parse_args()
    args.leads = tuple(sorted(set(args.leads)))
    check_device(args.device)
    if likely_place()[1] % args.share:
        raise FlagError(
            f"--share {args.share} has to divide the {likely_place()[1]} ranks that a launcher has started."
        )
    if looks_for_all():
        from matey.data.registry import check_found

        runs = [folder for folder in args.checkpoint if not is_peer(folder) and is_run(folder)]
        if not args.data and not runs:
            raise FlagError(f"{args.checkpoint[0]} is a model without a run, which names no data; give --data.")
        for data in args.data or ():
            check_found(data)
        for each in () if args.data else load_config(find_shipped(runs[0]) / CONFIG).data.sets:
            check_found(each.path, each.description)
    from matey.commands.evaluate import main

    return main(args)


@entry_point
def predict() -> int:
    """Forecast trajectories with a trained model, into a file that other programs open.

        matey predict --checkpoint RUN_OR_MODEL --data FILE --out forecast.nc [--steps 100 --lead 5 --start 0]

    The suffix of --out chooses the format: .nc is netCDF by the CF conventions, .zarr a Zarr store, .h5 and .hdf5 the layout
    of The Well. There is a variable for each field, with dimensions trajectory, time, [z,] y, x. The data needs no more
    frames than the model is given: where a trajectory ends, the forecast goes on without truth. The same command goes on with
    a forecast that was killed.
    """
    parser = parser_of(predict)
    add = parser.add_argument
    add("--checkpoint", required=True, type=path, metavar="RUN_OR_MODEL", help="folder of a run, or its model/")
    add("--data", required=True, metavar="PATH", help="data set: a file, a folder or a glob")
    add("--out", required=True, type=path, metavar="FILE", help="file to make: .nc, .zarr, .h5 or .hdf5")
    add("--steps", type=whole(1), default=20, metavar="N", help="snapshots to forecast (20)")
    add("--lead", type=whole(1), default=1, metavar="N", help="snapshots predicted from the same frames (1)")
    add("--start", type=whole(0), default=0, help="first frame that the model is given (0)")
    add("--trajectories", type=wholes(0), metavar="N,N", help="numbers of trajectories, from 0; by default all")
    add("--animate", type=path, metavar="FILM", help="film of the first trajectory: .gif or .mp4")
    add("--field", metavar="NAME", help="field of the film; by default the first")
    cell = "cell, also as Z,Y,X, of which a time series is written as CSV and drawn; may be given several times"
    add("--probe", action="append", default=[], type=wholes(0, counts=(2, 3)), metavar="Y,X", help=cell)
    add("--overwrite", action="store_true", help="replace a file that is there")
    add_forecast(parser, "trajectories")
    args = parser.parse_args()
    check_device(args.device)
    is_run(args.checkpoint)  # raises if the folder holds no model
    if looks_for_all():
        from matey.data.registry import check_found

        check_found(args.data)
    from matey.evaluate.forecasts.formats import check_path, film_problem

    check_path(args.out, overwrite=args.overwrite)
    if args.animate is not None and (problem := film_problem(args.animate)):
        raise FlagError(f"--animate: {problem}")
    from matey.commands.predict import main

    return main(args)


@entry_point
def show_forecast() -> int:
    """Draw a rollout beside the truth, with the mesh of tokens that the model chooses at each time.

        matey show-forecast --checkpoint RUN_OR_MODEL --data PATH --out forecast.png [--steps 20,40,60]

    Upper row: the last frame that the model knows, and what it forecasts from there over its own predictions, each under the
    mesh of the tokens into which the model cuts it. Lower row: the truth. Errors are the field's VRMSE.
    """
    parser = parser_of(show_forecast)
    add = parser.add_argument
    add("--checkpoint", required=True, type=path, metavar="RUN_OR_MODEL", help="folder of a run, or its model/")
    add("--data", required=True, metavar="PATH", help="data set: a file, a folder or a glob")
    add("--trajectory", type=whole(0), default=0, help="number of the trajectory, counted from 0 (0)")
    add("--start", type=whole(0), default=0, help="first frame that the model is given (0)")
    drawn = "snapshots ahead that are drawn, up to five (20,40,60)"
    add("--steps", type=wholes(1, 10_000, counts=(1, 2, 3, 4, 5)), default=(20, 40, 60), help=drawn)
    add("--field", metavar="NAME", help="field that is drawn; by default the first")
    add("--history", type=whole(1, 1000), metavar="T", help="frames given; by default as trained")
    add("--out", required=True, type=png, metavar="PNG", help="picture to write")
    args = parser.parse_args()
    is_run(args.checkpoint)  # raises if the folder holds no model
    from matey.data.registry import check_found

    check_found(args.data)
    from matey.commands.predict import draw_forecast

    return draw_forecast(args)


@entry_point
def show_tokens() -> int:
    """Draw the mesh that a run's tokenizer chooses over a field.

        matey show-tokens FILE --config RUN.yaml [--set tokens.refine=0.1] --out mesh.png

    The first, middle and last window of one trajectory are drawn; their tokens are counted per level beside the uniform fine
    grid.
    """
    parser = parser_of(show_tokens)
    add = parser.add_argument
    add("file", metavar="FILE", help="data set: a file, a folder or a glob")
    add("--config", required=True, help="YAML of a run, see launch/runs/, whose tokens and history are taken")
    add_settings(parser)
    add("--trajectory", type=whole(0), default=0, help="number of the trajectory, counted from 0 (0)")
    add("--out", required=True, type=png, help="PNG to write")
    args = parser.parse_args()
    run = load_config(args.config, args.set)
    from matey.data import DataError, open_dataset

    data = open_dataset(args.file)
    if args.trajectory >= data.num_trajectories:
        raise DataError(
            f"{args.file} has {data.num_trajectories} trajectories, numbered from 0; got {args.trajectory}."
        )
    from matey.commands.predict import draw_tokens

    return draw_tokens(data, run, args.trajectory, args.out)


@entry_point
def inspect_data() -> int:
    """Say what is in data sets, and check that all of it can be used.

        matey inspect PATH... [--plot] [--out contact_sheet.png]
        matey inspect FILE --describe matey.yaml [--plot]

    A PATH is a file, a folder or a glob, and may hold several systems; each is shown by itself. Every frame is read: a file
    that cannot be read to its end, a value that is not finite, shapes that differ and times that do not increase are printed,
    one line for each, and make the exit code 1. So does a folder with too few frames or trajectories to train on.

    --describe is for a file of a layout of your own (HDF5, netCDF, Zarr, .npy): it writes a YAML that says what is in it, as
    far as that can be guessed, with TODO for the rest. With these filled in, the YAML is a PATH like any other; under the
    name matey.yaml, it is found beside the data.
    """
    parser = parser_of(inspect_data)
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="data: a file, a folder or a glob")
    add("--plot", action="store_true", help="draw frames of one trajectory of each system")
    add("--out", type=png, default=Path("contact_sheet.png"), help="PNG of --plot (contact_sheet.png)")
    add("--describe", type=path, metavar="YAML", help="file for a guessed description of one FILE")
    args = parser.parse_args()
    if args.describe is not None and len(args.paths) > 1:
        parser.error(f"--describe takes one file, got {len(args.paths)}; describe each kind of file by itself")
    from matey.commands.inspect_data import describe, inspect

    sheet = args.out if args.plot else None
    return inspect(args.paths, sheet) if args.describe is None else describe(args.paths[0], args.describe, sheet)


@entry_point
def convert_data() -> int:
    """Write data of any kind that is read here in The Well's layout.

        matey convert-data SRC --out DIR

    SRC is a file, a folder, a glob, or the YAML that describes such, and holds one system. DIR gets data/train, data/valid,
    data/test and stats.yaml, which The Well's own reader opens. Splits that the files state are kept; other data is split by
    --split and --seed, as a run splits it.
    """
    parser = parser_of(convert_data)
    add = parser.add_argument
    add("source", metavar="SRC", help="data: a file, a folder or a glob")
    add("--out", type=path, required=True, metavar="DIR", help="folder to make")
    add("--split", type=float, nargs=3, default=(0.8, 0.1, 0.1), metavar="SHARE", help="shares (0.8 0.1 0.1)")
    add("--seed", type=whole(0), default=0, help="seed of the split (0)")
    args = parser.parse_args()
    from tqdm import tqdm

    from matey.data.registry import open_dataset
    from matey.data.splits import split_set
    from matey.data.to_the_well import write_the_well
    from matey.data.trajectories import PARTS

    data = open_dataset(args.source)
    split = split_set(data, args.split, args.seed)
    counts = {part: len(getattr(split, part)) for part in PARTS}
    total = sum(counts.values())
    with writing(args.out), tqdm(total=total, desc=data.system, unit=" trajectories", disable=None) as bar:
        notes = write_the_well(data, split, args.out, bar.update)
    parts = ", ".join(f"{number} {part}" for part, number in counts.items())
    print(*notes, f"Wrote {args.out}: {parts} trajectories of {data.system}.", sep="\n")
    print(f"WellDataset(path={str(args.out)!r}, well_split_name='train') opens it, and so does MATEY.")
    return 0


@entry_point
def convert_checkpoint() -> int:
    """Turn a training checkpoint of any ranks and ZeRO stage into another form, or say what is in it and whether it is whole.

        matey convert CHECKPOINT --to huggingface|fp32|universal --out DIR [--ema] [--dtype bfloat16]
        matey convert --describe CHECKPOINT

    CHECKPOINT is a run's folder (its newest checkpoint is taken) or one of its checkpoints/step_*. One process on a CPU does
    it. The exit code is 1 if a described checkpoint is corrupt.
    """
    parser = parser_of(convert_checkpoint)
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", type=path, help="a run's folder, or one of its checkpoints")
    forms = "a model for from_pretrained, bare weights, or a run that other ranks and ZeRO stages can resume"
    add("--to", choices=("huggingface", "fp32", "universal"), help=forms)
    add("--out", type=path, metavar="DIR", help="folder to make")
    add("--ema", action="store_true", help="take the moving average of the weights (train.ema)")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="precision of the weights (float32)")
    add("--describe", action="store_true", help="print what the checkpoint holds and which files are corrupt")
    args = parser.parse_args()
    if args.describe == bool(args.to) or bool(args.to) != bool(args.out):
        parser.error("give either --describe, or --to and --out")
    first_file(step_folder(args.checkpoint))  # raises if there is no checkpoint
    from tqdm import tqdm

    from matey.checkpoints.convert import convert, describe
    from matey.checkpoints.source import find_checkpoint, find_damage

    source, run = find_checkpoint(args.checkpoint)
    if not args.describe:
        print(convert(source, run, args.to, args.out, average=args.ema, dtype=args.dtype))
        return 0
    print(describe(source, run))
    damage = find_damage(source, tqdm(source.files(), desc="Checking", unit="file", leave=False))
    for sentence in damage:
        print(f"corrupt: {sentence}")
    print("" if damage else f"All {len(source.files())} files are whole and of step {source.step}.")
    return 1 if damage else 0


@entry_point
def plan() -> int:
    """Plan a run before it costs node hours: tokens, memory of a rank by part, communication, step time, days.

        matey plan --config RUN.yaml --deepspeed_config X --nodes 92 --machine frontier

    Tokens are counted on windows of the run's data. Where that is not there yet, --grid and --refined say what to assume;
    --grid may be given once for each data set, in their order. A machine is one of matey/planning/machines/ or a YAML file of
    yours. The exit code is 1 if the run does not fit.
    """
    parser = parser_of(plan)
    add = parser.add_argument
    add("--config", required=True, help="YAML of the run, see launch/runs/")
    add("--deepspeed_config", required=True, help="JSON of the DeepSpeed engine, see ds_configs/")
    add_settings(parser)
    add("--machine", required=True, help="frontier, dgx-h100, cpu, or a YAML file")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--nodes", type=whole(1), help="number of nodes, with a rank on each GPU (GCD, core)")
    size.add_argument("--ranks", type=whole(1), help="number of ranks, in place of --nodes")
    add("--grid", action="append", type=grid, help="cells y,x or z,y,x of data that is not there yet (128,128)")
    add("--refined", type=number(0, 1), default=0.2, help="share of its patches that the rule threshold splits (0.2)")
    add("--fields", type=whole(1), default=4, help="number of fields of its systems (4)")
    args = parser.parse_args()
    run, deepspeed_config = load_config(args.config, args.set), load_deepspeed_config(args.deepspeed_config)
    from matey.commands.train import check_data
    from matey.planning import check_named, is_at_hand
    from matey.planning.machine import load_machine

    machine = load_machine(args.machine)
    is_assumed = args.grid is not None or not is_at_hand(run)
    (check_named if is_assumed else check_data)(run)
    from matey.planning.estimate import plan as plan_run
    from matey.planning.workload import Assumed

    assumed = Assumed(tuple(args.grid or [(1, 128, 128)]), args.refined, args.fields) if is_assumed else None
    text, fits = plan_run(run, deepspeed_config, machine, args.ranks or args.nodes * machine.devices_per_node, assumed)
    print(text)
    return 0 if fits else 1


def grid(text: str) -> tuple[int, int, int]:
    """Read ``y,x`` or ``z,y,x``."""
    *z, y, x = wholes(1, counts=(2, 3))(text)
    return z[0] if z else 1, y, x


@entry_point
def simulate() -> int:
    """Simulate an ensemble of trajectories of one PDE system and write it in the format of the published data.

        matey simulate --list
        matey simulate shallow_water --out data/swe --trajectories 200 --resolution 64
        matey simulate compressible_rand --out data/gas --trajectories 20 --mach 1.0

    The solvers and the layouts are in matey.simulate; without options, size and settings are those of the published set. A
    run that was interrupted goes on when it is started again.
    """
    from matey.simulate.catalogue import CATALOGUE, LAYOUTS, SYSTEMS, check_sizes, settings

    parser = parser_of(simulate)
    add = parser.add_argument
    add("system", nargs="?", metavar="SYSTEM", help=f"{' or '.join(CATALOGUE)}, or one of a package")
    add("--list", action="store_true", help="list the systems and stop")
    add("--out", type=path, metavar="DIR", help="folder for the files, which have their official names")
    add("--trajectories", type=int, help="number of trajectories (as published)")
    add("--resolution", type=int, help="cells along the longest axis (as published)")
    add("--frames", type=int, help="frames of each, the initial one included (as published)")
    for name, systems in settings().items():
        add(f"--{name}", type=float, help=f"setting of {' and '.join(systems)} (as published)")
    add("--seed", type=int, default=0, help="seed of the first trajectory; the next ones count up")
    layouts = "that of the published files, or arrays of mhd_cavity (official)"
    add("--layout", choices=("official", *LAYOUTS), default="official", help=layouts)
    add("--workers", type=threads, help="threads (as many as PyTorch takes)")
    add("--overwrite", action="store_true", help="replace a file made with other settings")
    args = parser.parse_args()
    if args.list:
        for name in SYSTEMS:
            print(f"{name:20s} {(CATALOGUE.get(name) or SYSTEMS[name]).summary}")
        return 0
    if args.system is None or args.out is None:
        parser.error("name a system and the folder for the file: SYSTEM --out DIR; --list lists the systems")
    system = SYSTEMS.check(args.system)
    for name, systems in settings().items():
        if getattr(args, name) is not None and system not in systems:
            raise FlagError(f"{system} has no --{name}, only {' and '.join(systems)} have.")
    if system not in LAYOUTS.get(args.layout, [system]):
        raise FlagError(f"{system} has no --layout {args.layout}, only {' and '.join(LAYOUTS[args.layout])} has.")
    published = CATALOGUE.get(system) or SYSTEMS[system]
    asked = {"num_trajectories": args.trajectories, "resolution": args.resolution, "num_frames": args.frames}
    sizes = {name: getattr(published, name) if size is None else size for name, size in asked.items()}
    chosen = {name: value for name in published.settings if (value := getattr(args, name, None)) is not None}
    interrupt_at_signals()
    try:
        check_sizes(**sizes, first_seed=args.seed, settings=chosen)
        from matey.commands.simulate import main

        with writing(args.out):
            return main(args, sizes, chosen)
    except (ValueError, ArithmeticError) as error:
        raise Mistake(str(error)) from None
    except KeyboardInterrupt:
        print("Interrupted; the same command continues from here.", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)  # files are closed; an ordinary exit would wait for the solvers' threads, for minutes


@entry_point
def watch() -> int:
    """Watch runs while they train, as curves in the terminal, or compare them once.

        matey watch RUN [RUN ...]
        matey watch RUN RUN --once

    RUN is a run's folder, such as runs/demo. Only its metrics.jsonl and config.yaml are read: the run is not touched, and may
    train on another machine that shares the folder. Ends with the last step, or with ctrl-C. matey evaluate --checkpoint
    RUN RUN compares errors on what was held out.
    """
    parser = parser_of(watch)
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    add("--every", type=whole(1, 3600), default=5, help="seconds between looks (5)")
    add("--once", action="store_true", help="look once, and end")
    args = parser.parse_args()
    from rich.console import Console
    from rich.live import Live

    from matey.report.progress import in_terminal, read_runs

    console, runs = Console(), read_runs(args.runs)
    with (
        suppress(KeyboardInterrupt),
        Live(in_terminal(runs, console.width), console=console, auto_refresh=False) as live,
    ):
        while not (args.once or all(run.is_over for run in runs)):
            time.sleep(args.every)
            runs = read_runs(args.runs)
            live.update(in_terminal(runs, console.width), refresh=True)
    return 0


@entry_point
def configs() -> int:
    """List the configurations that come with MATEY, print one to copy and change it, or explain a key of the run YAML.

        matey configs
        matey configs demo > mine.yaml
        matey configs explain tokens.refine

    Where a command takes the YAML of a run or the JSON of DeepSpeed, a name of this list will do. A key is explained by its
    type, default, unit and meaning, a section by all its keys; without a key, the sections are listed.
    """
    parser = parser_of(configs)
    parser.add_argument("name", nargs="?", metavar="NAME", help="name in the list, such as demo or zero1; or: explain")
    parser.add_argument("key", nargs="?", metavar="KEY", help="with explain: a key or a section of the run YAML")
    args = parser.parse_args()
    if args.name == "explain":
        from matey.config.explain import explain

        print(explain(args.key or ""))
        return 0
    if args.key:
        parser.error(f"a KEY goes with explain: configs explain {args.key}")
    if args.name is None:
        for folder, head in zip(KINDS, ("Runs, for --config:", "Engines, for --deepspeed_config:"), strict=True):
            print(
                head, *(f"  {name:26}{first_sentence(file)}" for name, file in configurations(folder).items()), sep="\n"
            )
        return 0
    known = {name: file for folder in KINDS for name, file in configurations(folder).items()}
    source = known.get(Path(args.name).stem)
    if source is None:
        raise Mistake(f"There is no configuration {args.name!r}.{hint_of_file(args.name)} See `matey configs`.")
    print(source.read_text("utf-8"), end="")
    return 0


def first_sentence(file: Path) -> str:
    """Return the first sentence of a YAML's head comment, or of the row of a JSON in the table beside it."""
    if file.suffix == ".json":
        row = re.search(rf"^\| `{file.name}` \| (.*) \|$", file.with_name("README.md").read_text("utf-8"), re.M)
        return re.split("[;(]", row[1])[0].strip() if row else ""
    lines = takewhile(lambda line: line.startswith("#"), file.read_text("utf-8").splitlines())
    return re.split(r"[:;] |[.:]$|\. ", " ".join(line.removeprefix("# ") for line in lines))[0]
