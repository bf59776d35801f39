"""The training stream: pure, fair to the weights, the same on any number of ranks and workers."""

from collections import Counter

import h5py
import numpy as np
import pytest
import torch
from seed_group_files import write_seed_groups

from matey.data import DataError, Mixture, micro_batches, open_dataset, split_trajectories


@pytest.fixture
def sets(shallow_water_file, diffusion_reaction_file):
    return [open_dataset(shallow_water_file), open_dataset(diffusion_reaction_file)]


@pytest.fixture
def mixture(sets):
    return Mixture(sets, [(0, 2), (1,)], weights=(3, 1), num_frames=3, lead_max=4, seed=5)


def samples(batches):
    """Every sample of some FieldBatches as (system, first value of the history, lead): says which window it was."""
    return [
        (batch.system, float(history[0, 0, 0, 0, 0]), float(lead))
        for batch in batches
        for history, lead in zip(batch.history, batch.lead_time, strict=True)
    ]


def test_a_global_batch_depends_on_seed_step_and_size_alone(sets, mixture):
    expected = [mixture.global_batch(step, 8) for step in range(4)]
    np.random.seed(0)
    torch.manual_seed(0)
    again = Mixture(sets, [(0, 2), (1,)], weights=(6, 2), num_frames=3, lead_max=4, seed=5)
    assert [again.global_batch(step, 8) for step in (3, 0)] == [expected[3], expected[0]]
    other = Mixture(sets, [(0, 2), (1,)], weights=(3, 1), num_frames=3, lead_max=4, seed=6)
    assert other.global_batch(0, 8) != expected[0] != expected[1]


def test_every_step_holds_each_system_by_its_weight(sets):
    mixture = Mixture(sets, [(0, 2), (1,)], weights=(0.7, 0.3), num_frames=3, lead_max=4, seed=0)
    counts = [Counter(window.set_index for window in mixture.global_batch(step, 8))[0] for step in range(500)]
    assert set(counts) == {5, 6}
    assert np.mean(counts) == pytest.approx(8 * 0.7, abs=0.1)


def test_systems_are_shuffled_within_a_global_batch(mixture):
    firsts = Counter(mixture.global_batch(step, 8)[0].set_index for step in range(400))
    assert firsts[1] / 400 == pytest.approx(0.25, abs=0.08)


def test_windows_are_of_training_trajectories_and_inside_them(tmp_path):
    lengths = (30,) * 10
    trajectories = open_dataset(write_seed_groups(tmp_path / "a.h5", "shallow_water", num_frames=lengths))
    split = split_trajectories(10, (0.6, 0.2, 0.2), seed=0)
    mixture = Mixture([trajectories], [split.train], weights=[1], num_frames=3, lead_max=4, seed=0)
    windows = [window for step in range(200) for window in mixture.global_batch(step, 16)]
    assert {window.trajectory for window in windows} == set(split.train)
    assert {window.lead for window in windows} == {1, 2, 3, 4}
    assert {window.start + 3 - 1 + window.lead for window in windows} == set(range(3, 30))
    assert {window.start for window in windows if window.lead == 4} == set(range(24))


def test_lead_is_limited_by_what_a_short_trajectory_allows(sets):
    mixture = Mixture(sets[:1], [(0,)], weights=[1], num_frames=9, lead_max=50, seed=0)
    windows = [window for step in range(50) for window in mixture.global_batch(step, 4)]
    assert {(window.start, window.lead) for window in windows} == {(0, 1), (1, 1), (0, 2)}


@pytest.mark.parametrize(
    ("micro_batch", "accumulation", "num_ranks"), [(8, 1, 1), (4, 1, 2), (2, 1, 4), (4, 2, 1), (2, 2, 2), (1, 2, 4)]
)
def test_a_step_holds_the_same_samples_however_it_is_cut(mixture, micro_batch, accumulation, num_ranks):
    (whole,) = micro_batches(mixture, 7, 1, micro_batch=8, accumulation=1, rank=0, num_ranks=1)
    cut = []
    for rank in range(num_ranks):
        parts = list(micro_batches(mixture, 7, 1, micro_batch, accumulation, rank, num_ranks))
        assert [sum(batch.num_samples for batch in part) for part in parts] == [micro_batch] * accumulation
        cut += [sample for part in parts for sample in samples(part)]
    assert sorted(cut) == sorted(samples(whole))


def test_resuming_at_a_step_goes_on_with_what_would_have_come(mixture):
    through = [samples(part) for part in micro_batches(mixture, 0, 5, 2, 2, rank=1, num_ranks=2)]
    resumed = [samples(part) for part in micro_batches(mixture, 3, 2, 2, 2, rank=1, num_ranks=2)]
    assert len(through) == 10 and resumed == through[6:]


@pytest.mark.parametrize(("workers", "start_method"), [(2, "fork"), (1, "spawn")])
def test_workers_give_the_stream_of_one_process_and_leave_torch_random_numbers_alone(mixture, workers, start_method):
    expected = list(micro_batches(mixture, 2, 3, 3, 2, rank=0, num_ranks=2))
    mixture.sets[0].read(0, 0, 1)
    state = torch.get_rng_state()
    came = list(micro_batches(mixture, 2, 3, 3, 2, 0, 2, workers=workers, start_method=start_method))
    assert torch.equal(torch.get_rng_state(), state)
    for one, other in zip(came, expected, strict=True):
        for batch, same in zip(one, other, strict=True):
            assert batch.system == same.system
            assert torch.equal(batch.history, same.history) and torch.equal(batch.target, same.target)
            assert torch.equal(batch.lead_time, same.lead_time)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_is_the_same_sentence_from_a_worker(shallow_water_file, workers):
    with h5py.File(shallow_water_file, "a") as file:
        file["0000/data"][...] = np.nan
    mixture = Mixture([open_dataset(shallow_water_file)], [(0,)], weights=[1], num_frames=3, lead_max=1, seed=0)
    stream = micro_batches(mixture, 0, 2, 2, 1, rank=0, num_ranks=1, workers=workers)
    with pytest.raises(DataError, match=r"^/.*h5, trajectory 0000: expected finite values, .*this trajectory\.$"):
        next(stream)


def test_a_trajectory_too_short_to_train_on_is_named(sets):
    with pytest.raises(DataError, match=r"h5, trajectory 0000: expected at least 12 frames, 11 of history and 1"):
        Mixture(sets[:1], [(0,)], weights=[1], num_frames=11, lead_max=1, seed=0)


def test_a_set_without_training_trajectories_is_named(sets):
    with pytest.raises(DataError, match="No trajectory of diffusion_reaction is left for training"):
        Mixture(sets, [(0,), ()], weights=[1, 1], num_frames=3, lead_max=1, seed=0)


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_that_is_not_positive_is_refused(sets, weight):
    with pytest.raises(DataError, match="The weight of diffusion_reaction must be positive, got"):
        Mixture(sets, [(0,), (0,)], weights=[1, weight], num_frames=3, lead_max=1, seed=0)


def test_weights_must_be_one_for_each_set(sets):
    with pytest.raises(DataError, match="a weight for each of 2 data sets, got 2 and 1"):
        Mixture(sets, [(0,), (0,)], weights=[1], num_frames=3, lead_max=1, seed=0)
