import json
from dataclasses import replace
from itertools import product

import h5py
import numpy as np
import pytest
import torch
import yaml

from matey import MateyConfig
from matey.config import DataSection
from matey.data import DataError, TrajectorySet, open_dataset
from matey.data.reading import read_history
from matey.data.splits import fingerprints, split_groups
from matey.data.views import CoarsenedTrajectories
from matey.evaluate.held_out import HeldOut, beyond_training, hold_out, sound_beginnings, without_seen
from matey.model.given import ranges_of
from matey.tokens.normalisation import normalisation_of
from tests.support.layout_files import write_the_well
from tests.support.models import PATCHES, make_model
from tests.support.small_files import write_waves


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
    with pytest.raises(DataError, match="was trained on 3 of these 3 trajectories"):
        without_seen(hold_out([shallow_water], "all", 2), seen, None, "leave_out")


def test_the_training_part_is_what_was_trained_on_and_may_be_asked_for(shallow_water):
    seen = frozenset(fingerprints(shallow_water, range(3)).values())
    data = hold_out([shallow_water], "train", 2, section(0.4, 0.3, 0.3))
    assert without_seen(data, seen, None, "refuse") == data


SPLIT = [0.4, 0.2, 0.4]


def held_out(bad, given_bad=()):
    """Five trajectories of 12 frames, with NaN in some frames of some, and of the forcing that is given."""
    values, forcing = np.ones((5, 12, 4, 6)), np.ones((5, 12, 4, 6))
    for number, frame in bad:
        values[number, frame, 1, 2] = np.nan
    for number, frame in given_bad:
        forcing[number, frame, 3, 3] = np.inf
    plane = {"spacing": (1, 1), "boundary": ("open", "open")}
    data = TrajectorySet.from_arrays("waves", {"u": values}, **plane, given={"f": forcing})
    return HeldOut((data,), ((0, 1, 2, 4),), num_frames=2)


def test_trajectories_end_before_their_first_bad_frame_and_short_ones_are_left_out():
    data = held_out(bad=[(0, 9), (0, 11), (1, 3), (3, 0)], given_bad=[(4, 8)])
    found = sound_beginnings(data, least=7, given=["f"])
    assert found.trajectories == ((0, 2, 4),)
    assert [found.sets[0].trajectories[number].num_frames for number in (0, 2, 4)] == [9, 12, 8]
    found.sets[0].read(0, 0, 9)
    (note,) = found.notes
    assert note.startswith("waves: 3 of 4 trajectories hold NaN or infinity") and "1 of them are left out" in note
    unaware = sound_beginnings(data, least=7)
    assert unaware.sets[0].trajectories[4].num_frames == 12


def test_a_set_of_which_nothing_is_left_is_refused():
    data = replace(held_out(bad=[(0, 5), (1, 2)]), trajectories=((0, 1),))
    with pytest.raises(DataError, match="waves: 2 of 2 trajectories hold NaN or infinity in the first 7 frames"):
        sound_beginnings(data, least=7)


def test_a_run_that_skipped_bad_values_is_scored_without_them(tmp_path, run_here):
    path = write_waves(tmp_path / "data", "shallow_water", num_trajectories=5, num_frames=12)
    with h5py.File(path, "r+") as file:
        names = sorted(name for name in file if name.isdecimal())
        held_out = [names[number] for number in split_groups([[n] for n in range(5)], SPLIT, 1).test]
        file[held_out[0]]["data"][3], file[held_out[1]]["data"][9] = np.nan, np.nan
    make_model(PATCHES, torch.float32).save_pretrained(tmp_path / "run" / "model")
    flags = ("--checkpoint", tmp_path / "run", "--leads", "1", "--rollout", "5", "--out", tmp_path / "out")
    for rule in ("refuse", "skip"):
        data = {"history": 2, "split": SPLIT, "split_seed": 1, "sets": [{"path": str(path)}], "bad_values": rule}
        (tmp_path / "run" / "config.yaml").write_text(
            yaml.safe_dump({"data": data, "train": {"steps": 2}, "output": {"dir": "runs/waves"}})
        )
        status, printed, errors = run_here("launch/evaluate.py", *flags)
        assert status == (2 if rule == "refuse" else 0), errors
    assert "2 of 2 trajectories hold NaN or infinity (data.bad_values: skip): 1 of them are left out" in printed
    records = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {record["num_windows"] for record in records if record["kind"] == "lead"} == {7}  # of the nine sound frames


def test_data_unlike_those_of_the_training_are_named(shallow_water):
    held_out = HeldOut((shallow_water,), ((0, 1, 2),), 2)
    scales = []
    for number, about in enumerate(shallow_water.trajectories):
        for start in range(about.num_frames - 1):
            scales.append(normalisation_of(read_history(shallow_water, [number], start, 2).history).scales())
    step = [[about.time_step, *about.spacing]] * 2
    ranges = ranges_of(torch.cat(scales), shallow_water.fields)
    config = MateyConfig(fields=["water_height"])
    assert not beyond_training(config, held_out)
    config.scales, config.spacings = ranges, {shallow_water.system: step}
    assert not beyond_training(config, held_out)
    coarser = CoarsenedTrajectories(shallow_water, frames=2, cells=2)
    (said,) = beyond_training(config, replace(held_out, sets=(coarser,)))
    assert "trained on: its time step, its spacing along y, its spacing along x" in said
    config.scales = {"water_height": [[low + 9 for low in bounds] for bounds in ranges["water_height"]]}
    assert "water_height's deviation" in beyond_training(config, held_out)[0]


def test_bad_values_do_not_hide_that_data_are_unlike_those_of_the_training():
    config = MateyConfig(fields=["u"], scales={"u": [[1, 1, 1], [2, 2, 2]]})
    (said,) = beyond_training(config, held_out(bad=[(4, 11)]))
    assert "u's deviation" in said
    assert not beyond_training(config, held_out(bad=product(range(5), range(11))))
