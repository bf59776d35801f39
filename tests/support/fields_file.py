"""The fields of a case in a file, opened as a data set, of which ranks read their parts."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import torch

from matey.benchmark.step import Case
from matey.config import DataDescription
from matey.data.described import DataFile, DescribedFiles
from matey.parallel import collectives

FILE, ARRAY = "fields.h5", "values"


@contextmanager
def in_a_file(case: Case, axes: str = "zyx", **stored: object) -> Iterator[tuple[Path, DescribedFiles]]:
    """Write a case into a file of a temporary folder, see `write`; yield it and the opened data set. All ranks must call."""
    with tempfile.TemporaryDirectory() as own:
        folder = Path(collectives.from_rank_zero(own))
        if collectives.rank() == 0:
            write(case, folder, axes, **stored)
        collectives.barrier()
        data = opened(case, folder, axes)
        data.read(0, 0, 1, (slice(0, 1),) * 3)  # opens the file
        yield folder, data
        collectives.barrier()


def write(case: Case, folder: Path, axes: str = "zyx", **stored: object) -> None:
    """Write the histories and targets of a case as one array ``(b, t, f, *axes)``, ``stored`` as h5py is told."""
    batch, order = case.make_batch(), [3 + "zyx".index(axis) for axis in axes]
    with h5py.File(folder / FILE, "w") as file:
        frames = torch.cat([batch.history, batch.known_target[:, None]], dim=1)
        file.create_dataset(ARRAY, data=frames.permute(0, 1, 2, *order).cpu().numpy(), **stored)


def opened(case: Case, folder: Path, axes: str = "zyx") -> DescribedFiles:
    """Open the file that `write` has written as a data set."""
    description = DataDescription.model_validate(
        {
            "system": "benchmark",
            "files": FILE,
            "axes": ["trajectory", "time", "component", *axes],
            "fields": {f"field_{number}": {"array": ARRAY, "index": number} for number in range(case.fields)},
            "spacing": dict.fromkeys(axes, 1.0),
            "time_step": 1.0,
            "boundary": dict.fromkeys(axes, "open"),
        }
    )
    return DescribedFiles(description, [DataFile((folder / FILE,))])
