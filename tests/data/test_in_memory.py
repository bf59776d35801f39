"""Trajectories in memory, which a solver in the same program feeds to training in a loop of one's own."""

import numpy as np
import pytest
import torch

from matey.data import Coordinates, DataError, TrajectorySet

FIELD = {"a": np.zeros((2, 3, 4, 4))}
LABELS = Coordinates(np.arange(4.0), "m")
PLANE = {"spacing": (0.25, 0.5), "boundary": ("wall", "periodic")}


def moving(num_trajectories=4, num_frames=8, size=16, dtype=torch.float64):
    """Waves that move along x, one cell a snapshot, as a solver in PyTorch would leave them."""
    phase = torch.rand(num_trajectories, 1, 1, 1, generator=torch.Generator().manual_seed(0)) * size
    t, y, x = (torch.arange(n, dtype=dtype) for n in (num_frames, size, size))
    wave = torch.sin(2 * torch.pi * (x + phase - t[:, None, None]) / size) + 0 * y[:, None]
    return wave.to(dtype)  # (n, t, y, x)


def test_arrays_and_tensors_are_read_frame_by_frame_without_a_copy():
    tensor = moving(2, 3).requires_grad_()
    array = np.zeros(tensor.shape, np.int16)
    data = TrajectorySet.from_arrays(
        "waves", {"height": tensor, "tracer": array}, **PLANE, time_step=0.1, units={"height": "m"},
        parameters={"speed": np.array([1, 2])},
    )  # fmt: skip
    about = data.trajectories[1]
    assert (about.grid, about.spacing, about.boundary) == ((1, 16, 16), (1.0, 0.25, 0.5), ("none", "wall", "periodic"))
    assert (about.num_frames, about.time_step, about.parameters, data.units) == (3, 0.1, {"speed": 2}, ("m", "?"))
    array[1, 2] = 7
    frames = data.read(1, 1, 3)
    assert frames.dtype == np.float32 and frames.shape == (2, 2, 1, 16, 16) and (frames[1, 1] == 7).all()
    np.testing.assert_array_equal(frames[:, 0, 0], tensor.detach()[1, 1:3].float())


def test_parameters_are_an_array_or_a_number_for_each_name():
    arrays = {"nu": np.array([0.1, np.nan]), "Re": torch.tensor([10, 20]), "M": 0.3, "g": [9, 8]}
    of_arrays = TrajectorySet.from_arrays("waves", FIELD, **PLANE, parameters=arrays)
    first, second = (about.parameters for about in of_arrays.trajectories)
    assert first == {"nu": 0.1, "Re": 10, "M": 0.3, "g": 9} and {*map(type, first.values())} == {float}
    assert np.isnan(second.pop("nu")) and second == {"Re": 20, "M": 0.3, "g": 8}


def test_types_of_pytorch_and_other_orders_of_bytes_are_read():
    values = np.arange(8.0).reshape(1, 2, 2, 2)
    for array in (torch.from_numpy(values).bfloat16(), values.astype(">f4"), values.astype("<i2")):
        data = TrajectorySet.from_arrays("s", {"a": array}, **PLANE)
        np.testing.assert_array_equal(data.read(0, 0, 2)[:, 0, 0], values[0].astype(np.float32))


@pytest.mark.parametrize("grid", [(5,), (4, 5), (3, 4, 5)])
def test_lines_planes_and_boxes_lie_along_the_last_of_z_y_x(grid):
    values = np.random.default_rng(0).normal(size=(2, 3, *grid))
    data = TrajectorySet.from_arrays("noise", {"a": values}, spacing=[1] * len(grid), boundary=["open"] * len(grid))
    assert data.trajectories[0].grid == (1,) * (3 - len(grid)) + grid
    np.testing.assert_array_equal(data.read(1, 0, 3)[:, 0].reshape(3, *grid), values[1].astype(np.float32))
    cells = tuple(slice(max(0, size - 3), size) for size in data.trajectories[0].grid)
    np.testing.assert_array_equal(data.read(1, 1, 3, cells), data.read(1, 1, 3)[:, :, *cells])


@pytest.mark.parametrize(
    ("fields", "changes", "words"),
    [
        ({}, {}, "got none"),
        ({"a": np.zeros((2, 3, 4))}, {}, r"arrays \(n, t, y, x\) of one shape, .* got a \(2, 3, 4\); array\[None\]"),
        (FIELD | {"b": np.zeros((2, 3, 4, 5))}, {}, r"of one shape, .* b \(2, 3, 4, 5\)"),
        (FIELD, {"boundary": ("wall", "wals")}, "expected boundaries periodic, .* got wals"),
        (FIELD, {"spacing": (0, 1)}, "expected steps above 0 in time and along"),
        ({"a": np.ma.masked_less(np.eye(4)[None, None], 0.5)}, {}, "without a mask for a, got float64; cut a box"),
        ({"a": np.zeros((2, 3, 4, 4), complex)}, {}, "real numbers without a mask for a, got complex128"),
        (FIELD, {"parameters": [{"nu": "a"}] * 2}, "parameters: expected a number for each name"),
        (FIELD, {"parameters": {"nu": np.zeros(3)}}, "an array of one for each of 2 trajectories"),
        (FIELD, {"coordinates": {"time": LABELS}}, "expected 3 numbers along time that increase"),
    ],
)
def test_arrays_that_do_not_fit_are_a_sentence(fields, changes, words):
    with pytest.raises(DataError, match=f"^waves[:,] .*{words}|^waves, {words}"):
        TrajectorySet.from_arrays("waves", fields, **PLANE | changes)


def test_a_value_that_is_not_finite_is_located():
    values = moving(1)
    values[0, 3, 2, 1] = torch.nan
    with pytest.raises(DataError, match=r"memory, trajectory 0: .*'height' is nan in frame 3 at .* = \(0, 2, 1\)"):
        TrajectorySet.from_arrays("waves", {"height": values}, **PLANE).read(0, 0, 8)
