"""Names that fields and parameters cannot have, wherever they come from."""

import h5py
import numpy as np
import pytest
import torch

import matey
from matey.data import DataError, TrajectorySet, open_dataset
from matey.data.describing import guess_description
from matey.data.splits import split_groups
from matey.data.to_the_well import write_the_well
from tests.support.described_files import flow
from tests.support.models import make_model


def in_memory(*fields, **parameters):
    values = np.random.default_rng(0).normal(3, 1, (4, 5, 8, 8))
    return TrajectorySet.from_arrays(
        "flow", dict.fromkeys(fields, values), spacing=(1, 1), boundary=("wall", "wall"), parameters=parameters
    )


def test_a_field_that_is_called_as_the_mean_over_the_fields_is_refused(tmp_path):
    with pytest.raises(
        DataError, match="flow: no field may be called 'all', as the mean over all fields is; rename it"
    ):
        in_memory("u", "all")
    np.save(tmp_path / "u.npy", np.zeros((3, 8, 8), "f4"))
    with pytest.raises(DataError, match="no field may be called 'all'"):
        open_dataset(tmp_path / "u.npy", flow(fields={"all": {}}, time_step=0.5))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (in_memory("velocity/x"), "velocity/x"),
        (in_memory("."), r"\."),
        (in_memory("u", **{"a/b": 1.0}), "a/b"),
    ],
)
def test_names_that_stand_for_a_place_in_a_file_are_refused_first(data, name, tmp_path):
    model = make_model(((1, 1, 4, 4),), torch.float32, fields=data.fields)
    with pytest.raises(DataError, match=f"got {name}: rename it"):
        matey.forecast(model, data, steps=2).write(tmp_path / "out.h5")
    with pytest.raises(DataError, match=f"got {name}: rename it"):
        write_the_well(data, split_groups([[n] for n in range(4)], (0.5, 0.25, 0.25), 0), tmp_path / "well")
    assert list(tmp_path.iterdir()) == []


def test_names_that_would_steer_a_terminal_are_refused_and_quoted_with_escapes(tmp_path):
    strange = "\x1b[31mred\x07"
    np.save(tmp_path / "u.npy", np.zeros((3, 8, 8), "f4"))
    for changed in ({"system": strange}, {"fields": {strange: {}}}, {"fields": {"u": {"unit": strange}}}):
        with pytest.raises(DataError, match="holds control characters; rename it") as refused:
            open_dataset(tmp_path / "u.npy", flow(time_step=0.5, **({"fields": {"u": {}}} | changed)))
        assert str(refused.value).isprintable()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file[strange], file["x"] = np.zeros((3, 8, 8)), np.zeros((2, 2))
        file[strange].attrs["units"] = strange
    with pytest.raises(DataError, match=r"holds \\x1b\[31mred\\x07 \(3, 8, 8\)") as refused:
        open_dataset(tmp_path / "a.h5")
    assert str(refused.value).isprintable()
    guess = guess_description(tmp_path / "a.h5", tmp_path)
    assert all(line.isprintable() for line in guess.text.splitlines())
