"""An unfinished file of forecasts is gone on with only where all that they are made from is as it was."""

import h5py
import numpy as np
import pytest
import torch

import matey
from matey.data import TrajectorySet
from matey.evaluate.forecasts.formats import FormatError
from tests.support.described_files import describe, flow
from tests.support.models import make_model

DESCRIPTION = flow(
    system="depths",
    files="run.h5",
    fields={"water_height": {"array": "h", "scale": 1.0}},
    given={"bed": {"array": "bed", "axes": ["y", "x"], "file": "bed.h5"}},
    parameters={"friction": {"table": "runs.csv"}},
)


@pytest.fixture(scope="module")
def network():
    return make_model(
        ((1, 1, 4, 4),), torch.float32, given=("bed",), parameters=("friction",), fields=("water_height", "bed")
    )


def digest(network, data):
    return matey.forecast(network, data, steps=2)._digest(".nc")


def test_parameters_steps_and_given_fields_in_memory_count(network):
    values, bed = np.random.default_rng(0).normal(size=(2, 4, 8, 8)), np.zeros((2, 8, 8))

    def made(**changes):
        told = {"spacing": (1, 1), "boundary": ("wall", "wall"), "time_step": 1.0, "parameters": {"friction": 0.1}}
        data = TrajectorySet.from_arrays(
            "depths", {"water_height": values}, **{**told, "given": {"bed": bed}, **changes}
        )
        return digest(network, data)

    assert made() == made()
    changes = [
        {"parameters": {"friction": 0.2}},
        {"spacing": (1, 2)},
        {"boundary": ("wall", "periodic")},
        {"time_step": 2.0},
        {"given": {"bed": bed + 1}},
    ]
    assert len({made(), *(made(**change) for change in changes)}) == 1 + len(changes)


@pytest.fixture
def folder(tmp_path):
    values = np.random.default_rng(0).normal(size=(4, 8, 8)).astype("f4")
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file["h"] = values
    write_bed(tmp_path / "bed.h5", 0)
    describe(tmp_path, DESCRIPTION)
    (tmp_path / "runs.csv").write_text("run,friction\nrun,0.1\n")
    return tmp_path


def write_bed(path, value):
    with h5py.File(path, "w") as file:
        file["bed"] = np.full((8, 8), value, "f4")


def test_descriptions_files_of_given_fields_and_tables_count(network, folder):
    digests = [digest(network, folder)]
    assert digest(network, folder) == digests[0]
    describe(folder, DESCRIPTION | {"fields": {"water_height": {"array": "h", "scale": 2.0}}})
    digests.append(digest(network, folder))
    write_bed(folder / "bed.h5", 1)
    digests.append(digest(network, folder))
    (folder / "runs.csv").write_text("run,friction\nrun,0.25\n")
    digests.append(digest(network, folder))
    assert len({*digests}) == 4


def test_files_of_given_fields_are_never_written_over(network, folder):
    before = (folder / "bed.h5").read_bytes()
    with pytest.raises(FormatError, match="is data that these forecasts are made from"):
        matey.forecast(network, folder, steps=2).write(folder / "bed.h5", overwrite=True)
    assert (folder / "bed.h5").read_bytes() == before


def test_what_the_data_lacks_of_a_models_inputs_is_a_warning(network):
    values = np.random.default_rng(0).normal(size=(2, 4, 8, 8))
    data = TrajectorySet.from_arrays(
        "depths", {"water_height": values}, spacing=(1, 1), boundary=("wall", "wall"), time_step=1.0
    )
    with pytest.warns(UserWarning, match="takes bed, friction .*, which depths lacks"):
        matey.forecast(network, data, steps=2)
