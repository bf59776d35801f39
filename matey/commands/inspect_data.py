"""Reads whole data sets and reports their contents and faults, or guesses a file's description; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

import numpy as np
from pydantic import ValidationError
from tqdm import tqdm

from matey.config import DataDescription, DataSection
from matey.config.loading import sentences
from matey.data import DataError, Trajectory, TrajectorySet, open_dataset
from matey.data.described import DescribedFiles
from matey.data.describing import guess_description
from matey.data.registry import open_each
from matey.data.remote import place, seen_from
from matey.data.splits import split_set
from matey.data.trajectories import PARTS
from matey.data.windows import num_starts, stretches
from matey.mistakes import Mistake, writing
from matey.text_table import text_table

LEAST_FRAMES = 2, 1  # history of the model in the box, and frames to predict


@dataclass
class Range:
    """Extremes and sums of the fields' values, gathered block by block; each array is ``(f)``. NaN, no data, is left out."""

    low: np.ndarray
    high: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    count: np.ndarray
    num_gaps: int = 0

    def add(self, frames: np.ndarray) -> None:
        """Add frames ``(t, f, z, y, x)``."""
        values = frames.swapaxes(0, 1).reshape(frames.shape[1], -1).astype(np.float64)  # (f, t z y x)
        self.low = np.fmin(self.low, np.fmin.reduce(values, axis=1))
        self.high = np.fmax(self.high, np.fmax.reduce(values, axis=1))
        self.total = self.total + np.nansum(values, axis=1)
        self.squares = self.squares + np.nansum(values**2, axis=1)
        self.count = self.count + np.isfinite(values).sum(axis=1)
        self.num_gaps += int(np.isnan(values).sum())


def inspect(paths: Sequence[str], sheet: Path | None) -> int:
    """Print the contents of the data and every fault, and draw frames if there is a path for a PNG; return 1 for a fault."""
    sets: list[TrajectorySet] = []
    of_runs: list[TrajectorySet] = []
    faults: list[str] = []
    for path in paths:
        found: list[TrajectorySet] = []
        try:
            found, errors = open_each(path)
            faults += map(str, errors)
            is_one = len(found) > 1 and len({(data.system, data.fields) for data in found}) == 1
            of_runs += [open_dataset(path)] if is_one else found  # of files with other units, training takes some
        except DataError as error:
            faults.append(str(error))
        sets += found
    for data in sets:
        values, own = check(data)
        faults += own
        print(contents(data, values, len(own)), end="\n\n")
    named = {place(path).absolute() for path in paths}
    for data in [] if faults else of_runs:
        if not {*data.sources} <= named and data.trajectories[0].split is None:  # else a run may have more than these
            try:
                for about in data.trajectories:
                    num_starts(about, *LEAST_FRAMES)
                split_set(data, DataSection.model_fields["split"].default, seed=0)
            except DataError as error:
                faults.append(f"{data.system}: {error}")
    for fault in faults:
        print(f"fault: {fault}")
    print(f"systems: {len(sets)}, files: {sum(len(data.sources) for data in sets)}, faults: {len(faults)}")
    if sheet is not None:
        draw(sets, sheet)
    return 1 if faults else 0


def draw(sets: Sequence[TrajectorySet], sheet: Path) -> None:
    """Write a PNG of frames of each data set."""
    from matey.report.pictures import contact_sheet, first_readable, write_png  # matplotlib takes longest to import

    if drawn := [rows for data in sets if (rows := first_readable(data))]:
        with writing(sheet):
            write_png(contact_sheet(drawn), sheet)
        print(f"contact sheet: {sheet}")


def check(data: TrajectorySet) -> tuple[Range, list[str]]:
    """Read every frame; in a trajectory with a fault, only the frames before it count."""
    nothing, faults = np.zeros(len(data.fields)), []
    values = Range(nothing + np.inf, nothing - np.inf, nothing, nothing, nothing)
    for index in tqdm(range(data.num_trajectories), desc=data.system, unit="trajectory", leave=False, disable=None):
        try:
            for start, frames in stretches(data, index):
                if data.given:
                    data.read_given(index, start, start + len(frames))  # which finds their faults
                values.add(frames)
        except DataError as error:
            faults.append(str(error))
    if isinstance(data, DescribedFiles) and data.description.mask and not (values.num_gaps or faults):
        faults.append(
            f"{data.system}: expected cells without data by mask: {data.description.mask}, but no cell has such a value; write "
            "the value that the field has in them."
        )
    return values, faults


def contents(data: TrajectorySet, values: Range, num_faults: int) -> str:
    """Return the table of a data set's metadata and values."""
    known, more = data.trajectories, " ..." if len(data.sources) > 1 else ""
    parts = [about.split for about in known]
    rows = {
        "files": f"{len(data.sources)}: {seen_from(Path(), data.sources[0])}{more}",
        "trajectories": f"{data.num_trajectories} of {spread(about.num_frames for about in known)} frames",
        **{f"along {axis}": along(known, number, unit_along(data, axis)) for number, axis in enumerate("zyx")},
        "time step": spread(about.time_step for about in known) + unit_along(data, "time"),
    }
    for name in dict.fromkeys(name for about in known for name in about.parameters):
        rows[name] = spread(about.parameters[name] for about in known if name in about.parameters)
    for name in data.description.parameters if isinstance(data, DescribedFiles) else ():
        rows.setdefault(name, "expected, and in none of the files")
    if data.given:
        rows["given"] = ", ".join(f"{n} (in time)" if n in data.given_in_time else n for n in data.given)
    if any(parts):
        rows["own split"] = ", ".join(f"{parts.count(part)} {part}" for part in PARTS)
    if values.num_gaps:
        share = values.num_gaps / (values.num_gaps + values.count.sum())
        rows["without data"] = f"{share:.1%} of the values, in all frames"
    finite = "all other values finite" if values.num_gaps else "all finite"
    rows["all frames"] = f"read, {finite}" if num_faults == 0 else f"faults in {num_faults} trajectories"
    width = max(map(len, rows)) + 2
    lines = [f"{name:<{width}}{text}" for name, text in rows.items()]
    return "\n".join([data.system, indent("\n".join([*lines, *field_table(data, values)]), "  ")])


def field_table(data: TrajectorySet, values: Range) -> list[str]:
    """Return lines with the unit and the range of each field."""
    if not values.count.any():
        return []
    mean = values.total / values.count
    deviation = np.sqrt(np.maximum(values.squares / values.count - mean**2, 0))
    numbers = np.stack([values.low, mean, values.high, deviation], axis=1)
    named = zip(data.fields, data.units, numbers, strict=True)
    rows = [[name, unit, *(f"{number:.5g}" for number in own)] for name, unit, own in named]
    return text_table(["field", "unit", "least", "mean", "most", "deviation"], rows, num_text=2).splitlines()


def unit_along(data: TrajectorySet, axis: str) -> str:
    """Return the unit of an axis as the first trajectory states it, after a blank; empty where it states none."""
    axes = [name for name, size in zip("zyx", data.trajectories[0].grid, strict=True) if size > 1]
    own = data.coordinates(axis, [0]) if axis in ("time", *axes) else None
    return "" if own is None or own.unit in ("", "?", "1") else f" {own.unit.partition(' since ')[0]}"


def along(trajectories: Sequence[Trajectory], axis: int, unit: str) -> str:
    """Describe a grid axis by its cells, their size and the boundaries; one entry for each combination that occurs."""
    kinds = dict.fromkeys((a.grid[axis], f"{a.spacing[axis]:.6g}{unit}", a.boundary[axis]) for a in trajectories)
    return "; ".join("no axis" if end == "none" else f"{n} cells of {size}, {end}" for n, size, end in kinds)


def spread(numbers: Iterable[float]) -> str:
    """Return one number as text, or the range of several."""
    numbers = list(numbers)
    low, high = f"{min(numbers):.6g}", f"{max(numbers):.6g}"
    return low if low == high else f"{low} to {high}"


def describe(path: str, out: Path, sheet: Path | None) -> int:
    """Write the description of a file and, if there is a path for a PNG, draw the described fields; return 0."""
    file = place(path)
    if not file.exists():
        raise DataError(f"{path} does not exist.")
    guess = guess_description(file, out.parent)
    with writing(out):
        try:
            with out.open("x", encoding="utf-8") as description:
                description.write(guess.text)
        except FileExistsError:
            raise Mistake(f"{out} exists already; choose another name, or remove it.") from None
    print(guess.text)
    print(f"description: {out}")
    if guess.questions:
        command = f"matey inspect {out} --plot"
        print(f"to answer in it: {', '.join(guess.questions)}; then: {command}")
    if sheet is not None and guess.provisional is None:
        print("not drawn: the axes must be known first")
    elif sheet is not None:
        try:
            draw([open_dataset(path, DataDescription.model_validate(guess.provisional))], sheet)
        except ValidationError as error:
            raise Mistake(f"{sheet} was not drawn: {sentences(error, DataDescription)}") from None
    return 0
