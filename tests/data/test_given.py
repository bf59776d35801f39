"""Fields that are given and not predicted, and parameters: how readers of each format come by them, and windows with them."""

import h5py
import numpy as np
import pytest
import torch

from matey.data import DataError, TrajectorySet, Window, open_dataset, read_rollouts, read_windows
from matey.data.reading import read_history, read_history_part, read_parts
from matey.data.trajectories import lacking_note
from matey.data.views import CoarsenedTrajectories, JoinedTrajectories, TimeBlocks
from tests.support.described_files import BY_NAME, dataset, describe
from tests.support.layout_files import NUM_X, NUM_Y, coded, write_incompressible, write_the_well

DEPTH = np.arange(NUM_Y * NUM_X, dtype=np.float32).reshape(NUM_Y, NUM_X)
FORCING = 100 + coded(1)[:, :, 0]  # (n, t, y, x)


@pytest.fixture
def described(tmp_path):
    values = dataset().assign(
        depth=(("lon", "lat"), DEPTH.T),
        profile=(("sample", "lat"), np.stack([DEPTH[:, 0], 2 * DEPTH[:, 0]])),
        f=(("sample", "time", "lat", "lon"), FORCING),
    )
    values.to_netcdf(tmp_path / "a.nc", engine="netcdf4", format="NETCDF4")
    given = {
        "depth": {"array": "depth", "axes": ["x", "y"]},
        "profile": {"array": "profile", "axes": ["trajectory", "y"]},
        "forcing": "f",
    }
    return describe(tmp_path, {"system": "advection", **BY_NAME, "given": given})


def test_described_fields_are_given_at_their_own_time_and_place(described):
    data = open_dataset(described)
    assert data.given == ("depth", "profile", "forcing") and data.given_in_time == {"forcing"}
    frames = data.read_given(1, 2, 5)
    assert frames.shape == (3, 3, 1, NUM_Y, NUM_X) and frames.dtype == np.float32
    np.testing.assert_array_equal(frames[:, 0, 0], np.broadcast_to(DEPTH, (3, NUM_Y, NUM_X)))
    np.testing.assert_array_equal(frames[1, 1, 0], np.repeat(2 * DEPTH[:, :1], NUM_X, axis=1))
    np.testing.assert_array_equal(frames[:, 2, 0], FORCING[1, 2:5])


def test_what_is_constant_in_time_is_a_single_frame_and_no_other_array_is_read(described):
    data = open_dataset(described).with_given(["depth", "wind"])
    assert data.given == ("depth",)
    np.testing.assert_array_equal(data.read_given(0, 1, 4), DEPTH[None, None, None])


def test_given_fields_keep_to_the_stride_of_the_others(described):
    described.write_text(f"{described.read_text()}\nfirst_frame: 1\nstride: 2\n")
    data = open_dataset(described).with_given(["forcing"])
    np.testing.assert_array_equal(data.read_given(0, 1, 3)[:, 0, 0], FORCING[0, [3, 5]])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"height": "f"}, "given.height: a field is predicted or given, not both"),
        ({"depth": {"array": "depth", "axes": ["time"]}}, "at least one of them of the grid"),
        ({"depth": {"array": "depth", "axes": ["y", "x"]}}, r"expected the axes \(y 8, x 12\) for the field 'depth'"),
    ],
)
def test_given_fields_that_do_not_fit_are_a_sentence(described, given, words):
    tree = {"system": "advection", **BY_NAME, "given": given}
    with pytest.raises(DataError, match=words):
        open_dataset(describe(described.parent, tree))


def test_the_well_gives_its_fields_that_are_constant_in_time(tmp_path):
    data = open_dataset(write_the_well(tmp_path / "a.hdf5"))
    assert data.given == ("depth",) and not data.given_in_time
    np.testing.assert_array_equal(data.read_given(1, 3, 4)[0, 0, 0], coded(3)[0, 0, 0])


def test_pdebench_gives_the_force_of_an_incompressible_flow(tmp_path):
    path = write_incompressible(tmp_path / "a.h5")
    force = np.random.default_rng(0).normal(size=(2, NUM_X, NUM_Y, 2)).astype(np.float32)
    with h5py.File(path, "a") as file:
        file["force"][...] = force
    data = open_dataset(path)
    assert data.given == ("force_x", "force_y")
    np.testing.assert_array_equal(data.read_given(1, 0, 1)[0, :, 0], force[1].transpose(2, 1, 0))


def from_memory(num_trajectories=2, given=("depth", "forcing"), parameters=None):
    fields = {"depth": np.stack([DEPTH] * num_trajectories), "forcing": FORCING[:num_trajectories]}
    return TrajectorySet.from_arrays(
        "advection",
        {"height": coded(1, num_trajectories)[:, :, 0]},
        spacing=(1, 1),
        boundary=("wall", "wall"),
        given={name: fields[name] for name in given},
        parameters=parameters,
    )


def test_windows_hold_what_is_given_up_to_their_targets():
    windows = [Window(0, 0, 1, lead=1), Window(0, 1, 2, lead=2)]
    (batch,) = read_windows([from_memory()], windows, num_frames=2)
    assert batch.given_fields == ("depth", "forcing") and batch.given.shape == (2, 4, 2, 1, NUM_Y, NUM_X)
    # Beyond a window's own target the last frame stands for what nobody looks at, and may be bad.
    np.testing.assert_array_equal(batch.given[0, :, 1, 0], FORCING[0, [1, 2, 3, 3]])
    np.testing.assert_array_equal(batch.given[1, :, 1, 0], FORCING[1, 2:6])
    (batch,) = read_windows([from_memory()], [Window(0, 0, 3, lead=1), windows[1]], num_frames=2)
    np.testing.assert_array_equal(batch.given[0, :, 1, 0], FORCING[0, [3, 4, 5, 5]])


def test_rollouts_and_forecasts_hold_what_is_given_as_far_as_they_go():
    (rollout,) = read_rollouts([from_memory()], [Window(0, 0, 0, lead=1)], num_frames=2, horizon=4)
    assert rollout.batch.given.shape[1] == 6
    history = read_history(from_memory(), [0, 1], 1, 2, follow=3)
    np.testing.assert_array_equal(history.given[:, :, 1, 0], FORCING[:, 1:6])
    with pytest.raises(DataError, match="expected forcing, which the model is given, up to frame 6, got 6 frames"):
        read_history(from_memory(), [0], 1, 2, follow=4)
    still = read_history(from_memory(given=["depth"]), [0], 1, 2, follow=99)
    assert still.given.shape[1] == 1


def test_what_is_given_is_read_in_boxes_by_every_reader(described, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")  # where the description does not hold
    flow = write_incompressible(other / "flow.h5")
    with h5py.File(flow, "a") as file:
        file["force"][...] = np.random.default_rng(0).normal(size=file["force"].shape)
    memory = from_memory()
    sets = [open_dataset(described), open_dataset(write_the_well(other / "a.hdf5")), open_dataset(flow), memory]
    sets += [CoarsenedTrajectories(memory, 2, 2), JoinedTrajectories([from_memory(1), memory])]
    sets.append(TimeBlocks.by_shares(memory, (0.5, 0.25, 0.25)))
    for data in sets:
        whole, (_, height, width) = data.read_given(1, 0, 2), data.trajectories[1].grid
        for y, x in ((slice(1, 3), slice(2, width)), (slice(0, height), slice(1, 2))):
            np.testing.assert_array_equal(data.read_given(1, 0, 2, (slice(0, 1), y, x)), whole[..., y, x])


def test_parts_of_windows_hold_what_is_given_in_their_boxes():
    windows = [Window(0, 0, 3, lead=1), Window(0, 1, 2, lead=2)]
    boxes = [
        (0, (slice(0, 1), slice(2, 5), slice(0, NUM_X))),
        (1, (slice(0, 1), slice(0, 2), slice(NUM_X - 1, NUM_X + 3))),
    ]
    for given, follow in ((("depth",), 1), (("depth", "forcing"), 1)):
        data = from_memory(given=given)
        (batch,) = read_windows([data], windows, num_frames=2)
        (part,) = read_parts([data], windows, 2, lambda samples: [boxes], follow)
        assert part.samples.given_fields == given and part.num_given == batch.given.shape[1]
        for piece, (sample, (_, y, x)) in zip(part.pieces, boxes, strict=True):
            columns = torch.arange(x.start, x.stop) % NUM_X
            assert torch.equal(piece.given, batch.given[sample][..., y, :][..., columns])
    (part,) = read_parts([from_memory()], windows, 2, lambda samples: [[]], follow=4)
    assert part.num_given == 6
    with pytest.raises(DataError, match="expected forcing, which the model is given, up to frame 6, got 6 frames"):
        read_history_part(from_memory(), [0], 1, 2, lambda samples: [[]], follow=4)


def test_samples_without_a_parameter_have_none_in_a_batch():
    data = from_memory(parameters={"nu": [0.5, torch.nan], "M": [1, torch.inf]})
    (batch,) = read_windows([data], [Window(0, number, 0, lead=1) for number in (0, 1)], num_frames=2)
    nan = torch.nan
    torch.testing.assert_close(
        batch.parameters, {"nu": torch.tensor([0.5, nan]), "M": torch.tensor([1, nan])}, equal_nan=True
    )


def puffs(parameters, **given):
    fields = {"u": np.zeros((2, 3, 4, 4), "f4")}
    ends = {"spacing": (1, 1), "boundary": ("wall", "wall")}
    return TrajectorySet.from_arrays("puffs", fields, parameters=parameters, given=given, **ends)


def test_what_trajectories_lack_of_a_models_parameters_is_said():
    data = puffs({"nu": [1.0, 2.0], "u": [torch.nan, 1.0]})
    assert lacking_note(["nu", "u"], [], [data]).startswith(
        "The model takes u (in 1 of 2 trajectories), which puffs lacks"
    )
    unknown = puffs({"nu": [1.0, torch.nan]})
    assert "takes nu (in 1 of 2 trajectories), which puffs lacks" in lacking_note(["nu"], [], [data, unknown])
    assert lacking_note(["nu"], [], [data]) == lacking_note([], [], [data]) == ""


def test_given_fields_that_a_set_lacks_are_said_but_not_one_that_it_has_to_predict():
    data = puffs({}, land=np.zeros((2, 4, 4)))
    assert lacking_note([], ["land", "u"], [data, data.with_given([])]) == ""
    assert lacking_note([], ["land", "sun"], [data]) == (
        "The model takes sun, which puffs lacks: it does without them."
    )
