"""Simulated data in The Well's layout, against the same trajectories in the official files and in The Well's own reader."""

import numpy as np
import pytest

from matey.data import open_dataset, split_set
from matey.data.splits import Split
from matey.data.to_the_well import write_the_well
from matey.simulate.catalogue import SYSTEMS
from matey.simulate.ensemble import make
from tests.support.laws import law

PARTS = ("train", "valid", "test")
QUICK = ("shallow_water", "incompressible", "mhd_cavity")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return a function that gives a system's official files and its folder in The Well's layout."""
    done = {}

    def write(system):
        if system not in done:
            folder = tmp_path_factory.mktemp("well") / system
            make(folder, SYSTEMS[system].ensemble(num_trajectories=4, resolution=16, num_frames=3))
            official = open_dataset(folder)
            write_the_well(official, Split((0, 1), (2,), (3,)), folder.with_name("the_well"))
            done[system] = official, folder.with_name("the_well")
        return done[system]

    return write


@law("system", SYSTEMS.own, quick=QUICK)
def test_both_layouts_hold_the_same_trajectories(system, written):
    official, folder = written(system)
    well = open_dataset(folder)
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


@law("system", SYSTEMS.own, quick=QUICK)
def test_the_reader_of_the_well_opens_it(system, written):
    data = pytest.importorskip("the_well.data", reason="needs pip install the-well")
    folder = str(written(system)[1])
    ours = open_dataset(folder)
    for part in PARTS:
        theirs = data.WellDataset(path=folder, well_split_name=part, use_normalization=True)
        theirs_raw = data.WellDataset(path=folder, well_split_name=part, use_normalization=False)
        own = [index for index, about in enumerate(ours.trajectories) if about.split == part]
        assert len(theirs_raw) == 2 * len(own)  # windows of one frame and the next
        window = theirs_raw[0]["input_fields"].numpy()  # (t, x, y, f)
        np.testing.assert_array_equal(window.transpose(0, 3, 2, 1), ours.read(own[0], 0, 1)[:, :, 0])
        assert np.isfinite(theirs[0]["output_fields"].numpy()).all()
