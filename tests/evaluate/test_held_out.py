import pytest

from matey.config import DataSection
from matey.data import DataError, open_dataset, split_trajectories
from matey.evaluate.held_out import hold_out
from tests.data.layout_files import write_the_well


def section(*split):
    return DataSection(sets=[{"path": "unused"}], split=split, split_seed=3)


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_a_part_is_what_the_run_split_off(part, shallow_water, diffusion_reaction):
    data = hold_out([shallow_water, diffusion_reaction], part, 2, section(0.4, 0.3, 0.3))
    expected = getattr(split_trajectories(3, (0.4, 0.3, 0.3), 3), part)
    assert data.trajectories == (expected, expected)
    assert data.part == part


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_a_part_is_what_the_data_set_itself_says(part, tmp_path):
    """In The Well's layout, the folder of a file is its part, and the run's fractions and seed do not matter."""
    for name in ("train", "valid", "test"):
        write_the_well(tmp_path / "flow" / "data" / name / "a.hdf5")
    flow = open_dataset(tmp_path / "flow")
    data = hold_out([flow], part, 2, section(0.4, 0.3, 0.3))
    own = tuple(i for i, about in enumerate(flow.trajectories) if about.source.parent.name == part)
    assert data.trajectories == (own,) and len(own) == 2


def test_a_data_set_that_has_not_the_part_says_so(tmp_path):
    flow = open_dataset(write_the_well(tmp_path / "flow" / "data" / "train" / "a.hdf5"))
    with pytest.raises(DataError, match="test_flow says itself what is for training, and holds only train"):
        hold_out([flow], "test", 2, section(0.4, 0.3, 0.3))


def test_all_needs_no_run(shallow_water):
    assert hold_out([shallow_water], "all", 2).trajectories == ((0, 1, 2),)


def test_a_part_without_a_run_is_refused(shallow_water):
    with pytest.raises(DataError, match="--split test needs a run folder"):
        hold_out([shallow_water], "test", 2)


def test_an_empty_part_is_refused(shallow_water):
    with pytest.raises(DataError, match=r"The test part of shallow_water is empty; .* \[0.5, 0.5, 0.0\]"):
        hold_out([shallow_water], "test", 2, section(0.5, 0.5, 0.0))


def test_systems_are_named_once_in_order(shallow_water, diffusion_reaction):
    data = hold_out([diffusion_reaction, shallow_water, diffusion_reaction], "all", 2)
    assert data.systems == ("diffusion_reaction", "shallow_water")
