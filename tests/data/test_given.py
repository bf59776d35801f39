"""Fields that are given and not predicted, and parameters: how readers of each format come by them, and windows with them."""

import os

import h5py
import numpy as np
import pytest
import torch

from matey.data import DataError, TrajectorySet, Window, open_dataset, read_rollout, read_windows
from matey.data.reading import read_history, read_history_part, read_parts
from matey.data.trajectories import lacking_note
from matey.data.views import CoarsenedTrajectories, JoinedTrajectories, TimeBlocks
from tests.support.described_files import BY_NAME, dataset, describe, flow
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
    batch, _ = read_rollout([from_memory()], [Window(0, 0, 0, lead=1)], num_frames=2, horizon=4)
    assert batch.given.shape[1] == 6
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


def test_what_a_set_lacks_of_what_a_model_is_told_is_said_but_no_field_to_predict():
    data = from_memory(parameters={"nu": [1.0, 2.0], "u": [torch.nan, 1.0]})
    assert "takes u (in 1 of 2 trajectories), which advection lacks" in lacking_note(["nu", "u"], [], [data])
    assert "takes sun, which advection lacks" in lacking_note([], ["depth", "sun"], [data])
    assert lacking_note(["nu"], ["depth", "height"], [data, data.with_given([])]) == ""


TABLES = {"Re": {"table": "runs.csv"}, "angle": {"table": "runs.csv", "column": "alpha (deg)"}}
FLOW = flow(fields={"u": "u"}, parameters=TABLES)
CSV = "run,Re,alpha (deg)\nb,200,\n a ,1e2, 0.5\n"


def write(path, *trajectories):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["u"] = np.zeros((*trajectories, 4, 8, 8), "f4")


def parameters(folder, table=CSV, **keys):
    (folder / "runs.csv").write_text(table)
    describe(folder, FLOW | keys)
    return [about.parameters for about in open_dataset(folder).trajectories]


@pytest.fixture
def runs(tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}.h5")
    return tmp_path


def test_each_file_has_the_numbers_of_its_row_and_empty_cells_are_not_known(runs):
    assert parameters(runs) == [{"Re": 100, "angle": 0.5}, {"Re": 200}]


def test_rows_are_called_as_the_paths_or_names_of_files_or_as_trajectories(tmp_path):
    write(tmp_path / "x" / "run.h5", 2)
    write(tmp_path / "y" / "run.h5", 2)
    keys = {"files": "*/run.h5", "axes": ["trajectory", "time", "y", "x"], "parameters": {"Re": {"table": "runs.csv"}}}
    assert parameters(tmp_path, "file,Re\nx/run.h5,1\nrun,2\n", **keys) == [
        {"Re": 1}, {"Re": 1}, {"Re": 2}, {"Re": 2},
    ]  # fmt: skip
    assert parameters(tmp_path, "file,Re\nx/run.h5/1,7\n1,6\n0,5\n", **keys) == [
        {"Re": 5}, {"Re": 7}, {"Re": 5}, {"Re": 6},
    ]  # fmt: skip


def test_a_table_that_changed_is_read_again(runs):
    parameters(runs)
    (runs / "runs.csv").write_text(CSV.replace("200", "300"))
    os.utime(runs / "runs.csv", (1, 1))
    assert open_dataset(runs).trajectories[1].parameters == {"Re": 300}


WRONG = {
    "no column": ("run,Rey,alpha (deg)\na,1,2\nb,1,2", "expected a column 'Re' .* found Rey, alpha .* mean 'Rey'\\? Correct"),
    "no row": ("run,Re,alpha (deg)\na,1,2", "expected a row 'b.h5' or 'b' for .*b.h5, trajectory b, found a; add it"),
    "a word": (CSV.replace("1e2", "fast"), "expected a number in the column 'Re' of .*a.h5.* got 'fast'; correct"),
    "two rows": (CSV + "a,1,2\n", "is not a table: .* each row, once, .* got 'a,1,2' below"),
    "semicolons": (CSV.replace(",", ";"), "expected a first line .* divided by commas, .* got 'b;200;' below 'run;Re;alpha"),
}  # fmt: skip


@pytest.mark.parametrize(("table", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_table_is_refused_in_one_sentence_that_names_it(runs, table, message):
    with pytest.raises(DataError, match=f"runs.csv.*{message}") as refused:
        parameters(runs, table)
    assert "\n" not in str(refused.value)


def test_a_table_that_is_missing_is_refused(runs):
    with pytest.raises(DataError, match="gone.csv cannot be read .No such file or directory., where the description"):
        parameters(runs, parameters={"Re": {"table": "gone.csv"}})


def parameters_of(folder, **keys):
    describe(folder, flow() | keys)
    return [about.parameters for about in open_dataset(folder).trajectories]


def test_numbers_are_read_from_the_names_of_folders_and_files(tmp_path):
    for name in ("PreRe7_Re100/u_nu0.01.npy", "PreRe7_Re100/u_nu1e-3.npy", "Re2.5e+3/u_nu-1.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / name, np.zeros((4, 8, 8), "f4"))
    parameters = {"Re": {"in_name": "Re{}"}, "nu": {"in_name": "nu{}"}}
    found = parameters_of(tmp_path, files="*Re*/u_*.npy", fields={"u": {}}, parameters=parameters)
    assert found == [{"Re": 100, "nu": 0.01}, {"Re": 100, "nu": 0.001}, {"Re": 2500, "nu": -1}]


def attributed(path, values):
    with h5py.File(path, "w") as file:
        file["u"] = np.zeros((2, 4, 8, 8), "f4")
        for (where, name), value in values.items():
            (file[where] if where else file).attrs[name] = value


RUNS = {"axes": ["trajectory", "time", "y", "x"], "fields": {"u": "u"}, "parameters": {"nu": {"attribute": "nu"}}}


def test_an_attribute_may_have_a_number_for_each_trajectory_or_be_that_of_the_array(tmp_path):
    attributed(tmp_path / "a.h5", {("", "nu"): [0.1, 0.2]})
    attributed(tmp_path / "b.h5", {("u", "nu"): 0.3})
    attributed(tmp_path / "c.h5", {("u", "nu"): 0.3, ("", "nu"): 0.4})
    attributed(tmp_path / "d.h5", {})
    numbers = [{"nu": 0.1}, {"nu": 0.2}, *[{"nu": 0.3}] * 2, *[{"nu": 0.4}] * 2, {}, {}]
    assert parameters_of(tmp_path, **RUNS) == numbers
