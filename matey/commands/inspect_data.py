"""Reads whole data sets and reports their contents and faults, or guesses a file's description; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from tqdm import tqdm

from matey.config import DataDescription
from matey.config.flags import started_as
from matey.config.loading import sentences
from matey.data import DataError, Trajectory, TrajectorySet, open_dataset
from matey.data.coordinates import UNEVEN_TIME
from matey.data.described import DescribedFiles
from matey.data.describing import Guess, guess_description
from matey.data.registry import open_each
from matey.data.remote import place, seen_from
from matey.data.trajectories import PARTS
from matey.data.windows import given_stretches, stretches
from matey.mistakes import Mistake, writing

_SMALL = 1e-9  # below this size, the 1e-12 in normalisation and errors changes a value by more than a thousandth


@dataclass
class Range:
    """Extremes and sums of the fields' values, and empty frames, counted block by block; each array is ``(f)``."""

    low: np.ndarray
    high: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    count: int = 0
    num_blank: int = 0  # frames in which every field is 0 in all cells

    @classmethod
    def empty(cls, num_fields: int) -> Range:
        """Return the range before any frame is added."""
        nothing = np.zeros(num_fields)
        return cls(nothing + np.inf, nothing - np.inf, nothing.copy(), nothing.copy())

    def add(self, frames: np.ndarray) -> None:
        """Add frames ``(t, f, z, y, x)``."""
        values = frames.swapaxes(0, 1).reshape(frames.shape[1], -1).astype(np.float64)  # (f, t z y x)
        self.low = np.minimum(self.low, values.min(axis=1))
        self.high = np.maximum(self.high, values.max(axis=1))
        self.total += values.sum(axis=1)
        self.squares += (values**2).sum(axis=1)
        self.count += values.shape[1]
        self.num_blank += int((~frames.any(axis=(1, 2, 3, 4))).sum())

    @property
    def mean(self) -> np.ndarray:
        """Mean over all cells of all frames."""
        return self.total / self.count

    @property
    def deviation(self) -> np.ndarray:
        """Standard deviation over all cells of all frames."""
        return np.sqrt(np.maximum(self.squares / self.count - self.mean**2, 0))


def inspect(paths: Sequence[str], sheet: Path | None) -> int:
    """Print the contents of the data and every fault, and draw frames if there is a path for a PNG; return 1 for a fault."""
    sets: list[TrajectorySet] = []
    faults: list[str] = []
    for path in paths:
        try:
            found, errors = open_each(path)
        except DataError as error:
            found, errors = [], [error]
        sets += found
        faults += map(str, errors)
    for data in sets:
        values, own = check(data)
        faults += own
        print(contents(data, values, len(own)), end="\n\n")
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
    values, faults = Range.empty(len(data.fields)), []
    for index in tqdm(range(data.num_trajectories), desc=data.system, unit="trajectory", leave=False, disable=None):
        try:
            for _, frames in stretches(data, index):
                values.add(frames)
            if data.given:
                for _ in given_stretches(data, index):  # reading finds the faults
                    pass
        except DataError as error:
            faults.append(str(error))
    return values, faults


def contents(data: TrajectorySet, values: Range, num_faults: int) -> str:
    """Return the table of a data set's metadata and values."""
    rows = [
        (
            "files",
            f"{len(data.sources)}: {seen_from(Path(), data.sources[0])}" + (" ..." if len(data.sources) > 1 else ""),
        ),
        ("trajectories", f"{data.num_trajectories} of {spread(a.num_frames for a in data.trajectories)} frames"),
        *((f"along {axis}", along(data.trajectories, number)) for number, axis in enumerate("zyx")),
        ("time step", spread(about.time_step for about in data.trajectories) + _unevenness(data)),
    ]
    names = dict.fromkeys(name for about in data.trajectories for name in about.parameters)
    for name in names:
        rows.append((name, spread(a.parameters[name] for a in data.trajectories if name in a.parameters)))
    if isinstance(data, DescribedFiles):
        rows += [
            (name, "expected, and in none of the files") for name in data.description.parameters if name not in names
        ]
    if data.given:
        rows.append(("given", ", ".join(f"{n} (in time)" if n in data.given_in_time else n for n in data.given)))
    parts = [about.split for about in data.trajectories]
    if any(parts):
        own = ", ".join(f"{parts.count(part)} {part}" for part in PARTS)
        rows.append(("own split", own))
    rows.append(("all frames", "read, all finite" if num_faults == 0 else f"faults in {num_faults} trajectories"))
    if values.num_blank:
        rows.append(("empty frames", f"{values.num_blank} hold nothing but 0: were they ever written?"))
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join([data.system, *(f"  {name:<{width}}{text}" for name, text in rows), *field_table(data, values)])


def _unevenness(data: TrajectorySet) -> str:
    """Say how uneven the times of the first trajectory are, where its reader takes them as even."""
    times = data.coordinates("time", [0])
    steps = np.diff([] if times is None else times.values)
    if not len(steps) or np.abs(steps - steps.mean()).max() <= UNEVEN_TIME * steps.mean():
        return ""
    return f", uneven: {steps.min():.4g} to {steps.max():.4g} in the first; a lead counts snapshots, however far apart"


def field_table(data: TrajectorySet, values: Range) -> list[str]:
    """Return a line per field with its unit and range."""
    if values.count == 0:
        return []
    width = max(len(name) for name in ("field", *data.fields)) + 2
    of_unit = max(len(unit) for unit in ("unit  ", *data.units)) + 2
    lines = [
        f"  {'field':<{width}}{'unit':<{of_unit}}" + "".join(f"{h:>13}" for h in ("least", "mean", "most", "deviation"))
    ]
    columns = zip(data.fields, data.units, values.low, values.mean, values.high, values.deviation, strict=True)
    for name, unit, *numbers in columns:
        lines.append(f"  {name:<{width}}{unit:<{of_unit}}" + "".join(f"{number:>13.5g}" for number in numbers))
    small = [(n, d) for n, d in zip(data.fields, values.deviation, strict=True) if 0 < d < _SMALL]
    for name, deviation in small:
        lines.append(
            f"  {name}: too small to be told from 0; write smaller units, with a description scale: "
            f"{10.0 ** -np.floor(np.log10(deviation)):.0e} beside its array"
        )
    return lines


def along(trajectories: Sequence[Trajectory], axis: int) -> str:
    """Describe a grid axis by its cells, their size and the boundaries; one entry for each combination that occurs."""
    kinds = dict.fromkeys((a.grid[axis], f"{a.spacing[axis]:.6g}", a.boundary[axis]) for a in trajectories)
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
        command = f"{started_as('tools/inspect_data.py', 'inspect')} {out} --plot"
        print(f"to answer in it: {', '.join(guess.questions)}; then: {command}")
    if sheet is not None:
        draw_guess(guess, path, sheet)
    return 0


def draw_guess(guess: Guess, path: str, sheet: Path) -> None:
    """Draw the fields as described by the guess."""
    from matey.report.pictures import contact_sheet, first_readable, write_png

    if guess.provisional is None:
        print("not drawn: the axes must be known first")
        return
    try:
        rows = first_readable(open_dataset(path, DataDescription.model_validate(guess.provisional)))
        if rows is None:
            print("not drawn: no trajectory has values that are finite all over in the frames to draw")
            return
        write_png(contact_sheet([rows]), sheet)
    except (DataError, OSError, ValidationError) as error:
        reason = sentences(error, DataDescription) if isinstance(error, ValidationError) else error
        raise Mistake(f"{sheet} was not drawn: {reason}") from None
    print(f"contact sheet: {sheet}")
