import pytest

from matey.config import DataSection
from matey.data import DataError, open_dataset
from matey.data.splits import fingerprints, split_groups
from matey.evaluate.held_out import hold_out, without_seen
from tests.support.layout_files import write_the_well


def section(*split):
    return DataSection(sets=[{"path": "unused"}], split=split, split_seed=3)


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_a_part_is_what_the_run_split_off(part, shallow_water, diffusion_reaction):
    data = hold_out([shallow_water, diffusion_reaction], part, 2, section(0.4, 0.3, 0.3))
    expected = getattr(split_groups([[n] for n in range(3)], (0.4, 0.3, 0.3), 3), part)
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
    with pytest.raises(DataError, match="test_flow has a split of its own, and holds only train"):
        hold_out([flow], "test", 2, section(0.4, 0.3, 0.3))


def test_a_part_without_a_run_is_refused(shallow_water):
    with pytest.raises(DataError, match="--split test needs a run folder"):
        hold_out([shallow_water], "test", 2)


def test_an_empty_part_is_refused(shallow_water):
    with pytest.raises(DataError, match=r"The test part of shallow_water is empty; .* \[0.5, 0.5, 0.0\]"):
        hold_out([shallow_water], "test", 2, section(0.5, 0.5, 0.0))


def test_what_the_model_was_trained_on_is_refused_left_out_or_noted(shallow_water, diffusion_reaction):
    data = hold_out([shallow_water, diffusion_reaction], "all", 2)
    seen = frozenset(fingerprints(diffusion_reaction, [0, 2]).values())
    with pytest.raises(
        DataError, match="was trained on 2 of these 3 trajectories, known .* such as .*0000: .* --seen leave_out"
    ):
        without_seen(data, seen, None, "refuse")
    left = without_seen(data, seen, None, "leave_out")
    assert left.trajectories == ((0, 1, 2), (1,)) and "2 of these 3 trajectories, which are left out" in left.notes[0]
    scored = without_seen(data, seen, None, "score")
    assert scored.trajectories == data.trajectories and "their errors flatter it" in scored.notes[0]
    assert without_seen(data, frozenset(), None, "refuse") == data


def test_leaving_out_what_was_trained_on_must_leave_something(shallow_water):
    seen = frozenset(fingerprints(shallow_water, range(3)).values())
    with pytest.raises(DataError, match="--seen leave_out leaves nothing"):
        without_seen(hold_out([shallow_water], "all", 2), seen, None, "leave_out")


def test_the_training_part_is_what_was_trained_on_and_may_be_asked_for(shallow_water):
    seen = frozenset(fingerprints(shallow_water, range(3)).values())
    data = hold_out([shallow_water], "train", 2, section(0.4, 0.3, 0.3))
    assert without_seen(data, seen, None, "refuse") == data
