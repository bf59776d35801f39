"""Simulated data in The Well's layout, against the same trajectories in the official files and in The Well's own reader."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import yaml

from matey.data import open_dataset, split_set
from matey.simulate.ensemble import make
from matey.simulate.systems import SYSTEMS
from matey.simulate.the_well_systems import LAYOUTS

SIZES = {"num_trajectories": 4, "resolution": 16, "num_frames": 3}
PARTS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return a function that writes a system in The Well's layout and gives its folder."""
    done = {}

    def write(system):
        if system not in done:
            done[system] = tmp_path_factory.mktemp("well") / system
            make(done[system], ensemble_of(system))
        return done[system]

    return write


def ensemble_of(system, **sizes):
    return replace(SYSTEMS[system], layout=LAYOUTS[system]).ensemble(**(SIZES | sizes))


@pytest.mark.parametrize("system", tuple(SYSTEMS.own))
def test_both_layouts_hold_the_same_trajectories(system, written, tmp_path):
    make(tmp_path, SYSTEMS[system].ensemble(**SIZES))
    official, well = open_dataset(tmp_path), open_dataset(written(system))
    assert (well.system, set(well.fields)) == (official.system, set(official.fields))
    split = split_set(well, (0.8, 0.1, 0.1), seed=0)
    assert [len(part) for part in (split.train, split.valid, split.test)] == [2, 1, 1]
    order = [well.fields.index(name) for name in official.fields]
    for index, found in enumerate((*split.train, *split.valid, *split.test)):
        np.testing.assert_array_equal(well.read(found, 0, 3)[:, order], official.read(index, 0, 3))
        ours, theirs = well.trajectories[found], official.trajectories[index]
        assert ours.spacing == pytest.approx(theirs.spacing) and ours.time_step == pytest.approx(theirs.time_step)
        assert ours.boundary == tuple("wall" if end == "no_flux" else end for end in theirs.boundary)
        for name in ("dam_radius", "Bx", "Re", "Re_m"):
            assert ours.parameters.get(name) == pytest.approx(theirs.parameters.get(name))


@pytest.mark.parametrize("system", ["shallow_water", "incompressible"])
def test_statistics_are_those_of_the_training_part(system, written):
    stats = yaml.safe_load((written(system) / "stats.yaml").read_text())
    with h5py.File(written(system) / "data" / "train" / f"{system}.hdf5") as file:
        groups = ("t0_fields", "t1_fields")
        fields = {name: item[:].astype(np.float64) for group in groups for name, item in file[group].items()}
        scalars = set(file["t0_fields"])
    assert stats.keys() == {f"{kind}{of}" for kind in ("mean", "std", "rms") for of in ("", "_delta")}
    for name, field in fields.items():
        for suffix, values in (("", field), ("_delta", np.diff(field, axis=1))):
            over = None if name in scalars else tuple(range(values.ndim - 1))
            assert stats[f"mean{suffix}"][name] == pytest.approx(values.mean(axis=over), abs=1e-9)
            assert stats[f"std{suffix}"][name] == pytest.approx(values.std(axis=over), rel=1e-6)
            assert stats[f"rms{suffix}"][name] == pytest.approx(np.sqrt((values**2).mean(axis=over)), rel=1e-6)


def test_a_run_that_broke_off_goes_on_and_a_whole_one_is_left_alone(tmp_path):
    def two(trajectories, number):
        yield next(trajectories)
        yield next(trajectories)
        raise KeyboardInterrupt

    ensemble = ensemble_of("shallow_water")
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, ensemble, show=two)
    assert not (tmp_path / "stats.yaml").exists()
    assert [path.name for path in make(tmp_path, ensemble)] == ["shallow_water.hdf5"] * 2 + ["stats.yaml"]
    assert make(tmp_path, ensemble) == []
    with pytest.raises(ValueError, match="holds something else"):
        make(tmp_path, ensemble_of("shallow_water", first_seed=1))
    assert len(make(tmp_path, ensemble_of("shallow_water", first_seed=1), overwrite=True)) == 4
    assert yaml.safe_load((tmp_path / "stats.yaml").read_text())["mean"].keys() == {"water_height"}


def test_fewer_trajectories_than_parts_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has parts train, valid and test: make 3 trajectories, not 2"):
        make(tmp_path, ensemble_of("shallow_water", num_trajectories=2))


@pytest.mark.parametrize("system", tuple(SYSTEMS.own))
def test_the_reader_of_the_well_opens_it(system, written):
    data = pytest.importorskip("the_well.data", reason="needs pip install the-well")
    ours = open_dataset(written(system))
    for part in PARTS:
        theirs = data.WellDataset(path=str(written(system)), well_split_name=part, use_normalization=True)
        theirs_raw = data.WellDataset(path=str(written(system)), well_split_name=part, use_normalization=False)
        own = [index for index, about in enumerate(ours.trajectories) if about.split == part]
        assert len(theirs_raw) == 2 * len(own)  # windows of one frame and the next
        window = theirs_raw[0]["input_fields"].numpy()  # (t, x, y, f)
        np.testing.assert_array_equal(window.transpose(0, 3, 2, 1), ours.read(own[0], 0, 1)[:, :, 0])
        assert np.isfinite(theirs[0]["output_fields"].numpy()).all()
