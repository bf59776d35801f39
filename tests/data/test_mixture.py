"""The training stream: pure, fair to the weights, the same on any number of ranks and workers."""

from collections import Counter
from functools import partial
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch

from matey.data import DataError, Mixture, micro_batches, open_dataset, spread_windows
from matey.data.reading import sound_windows
from matey.data.splits import split_groups
from matey.train.ahead import on_any_of
from tests.support.laws import law
from tests.support.layout_files import NUM_X, NUM_Y, coded_value, write_seed_groups
from tests.support.parts import Group, share_in


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


def test_windows_drawn_by_themselves_are_those_of_the_whole_batch(mixture):
    for run_length in (1, 4):
        whole = mixture.global_batch(7, 40, run_length)
        parts = [mixture.global_batch(7, 40, run_length, range(first, first + 5)) for first in range(0, 40, 5)]
        assert [window for part in parts for window in part] == whole


def test_drawing_a_part_of_a_batch_draws_no_other_window(mixture, monkeypatch):
    drawn = []
    draw = Mixture._draw
    monkeypatch.setattr(Mixture, "_draw", lambda self, *args: drawn.append(args) or draw(self, *args))
    assert len(mixture.global_batch(3, 150_528, slots=range(10**5, 10**5 + 16))) == len(drawn) == 16


def test_windows_are_of_training_trajectories_and_inside_them(tmp_path):
    lengths = (30,) * 10
    trajectories = open_dataset(write_seed_groups(tmp_path / "a.h5", "shallow_water", num_frames=lengths))
    split = split_groups([[n] for n in range(10)], (0.6, 0.2, 0.2), seed=0)
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


def test_targets_move_on_as_asked_for_or_to_the_end_of_the_trajectory(mixture):
    plain = micro_batches(mixture, 1, 10, 3, 2, rank=1, num_ranks=2)
    moved = micro_batches(mixture, 1, 10, 3, 2, rank=1, num_ranks=2, further=lambda number: number % 5)
    lead_max = 0
    for number, (before, after) in enumerate(zip(plain, moved, strict=True), start=2):
        for was, came in zip(before, after, strict=True):
            assert torch.equal(was.history, came.history)
            last, target = (frames[:, 0, 0, 0, 0] // (NUM_X * NUM_Y) % 50 for frames in (came.last, came.target))
            assert torch.equal(came.lead_time, target - last)
            assert torch.equal(target, (last + was.lead_time + number % 5).clamp(max=10))
            lead_max = max(lead_max, came.lead_time.max())
    assert lead_max > 4


def test_a_trajectory_too_short_to_train_on_is_named(sets):
    with pytest.raises(DataError, match=r"h5, trajectory 0000: expected at least 12 frames, 11 of history and 1"):
        Mixture(sets[:1], [(0,)], weights=[1], num_frames=11, lead_max=1, seed=0)


def sizes(tmp_path, num_frames):
    return [
        open_dataset(write_seed_groups(tmp_path / f"{index}.h5", "shallow_water", num_frames=frames))
        for index, frames in enumerate(num_frames)
    ]


@pytest.mark.parametrize(
    ("temperature", "weights", "shares"),
    [
        (0, (1, 1), (1 / 2, 1 / 2)),
        (1, (1, 1), (16 / 20, 4 / 20)),
        (1, (1, 4), (1 / 2, 1 / 2)),
    ],
)
def test_the_share_of_a_set_is_its_weight_times_a_power_of_its_windows(tmp_path, temperature, weights, shares):
    """With 3 frames of history and one to follow, 11 frames hold 8 windows and 7 frames hold 4."""
    sets = sizes(tmp_path, [(11, 11, 11), (7,)])
    mixture = Mixture(sets, [(0, 2), (0,)], weights, num_frames=3, lead_max=1, seed=0, temperature=temperature)
    assert mixture.shares == pytest.approx(shares)
    counts = Counter(window.set_index for step in range(150) for window in mixture.global_batch(step, 4))
    assert counts[0] / 600 == pytest.approx(shares[0], abs=0.02)


def test_micro_batches_of_the_same_system_hold_one_and_the_shares_stay(mixture):
    systems = []
    for rank in range(2):
        for part in micro_batches(mixture, 0, 25, 4, 2, rank, num_ranks=2, same_system=True):
            (batch,) = part
            assert batch.num_samples == 4
            systems.append(batch.system)
    assert Counter(systems)["shallow_water"] / 100 == pytest.approx(3 / 4, abs=0.01)


@pytest.fixture
def spoilt(tmp_path):
    """Two trajectories of 11 frames, the first of which is bad in frames 4 and after."""
    path = write_seed_groups(tmp_path / "spoilt.h5", "shallow_water", num_frames=(11, 11))
    with h5py.File(path, "a") as file:
        file["0000/data"][4:, 3, 2] = np.nan
    return Mixture([open_dataset(path)], [(0, 1)], weights=[1], num_frames=3, lead_max=2, seed=1)


@law(("micro_batch", "accumulation", "num_ranks"), [(8, 1, 1), (2, 2, 2), (1, 4, 2)], quick=[(2, 2, 2)])
def test_bad_windows_are_skipped_alike_however_a_step_is_cut(spoilt, micro_batch, accumulation, num_ranks):
    drawn = [window for step in range(8) for window in spoilt.global_batch(step, 8)]
    (whole,) = [[samples(part) for part in micro_batches(spoilt, 0, 8, 8, 1, 0, 1, bad_values="skip")]]
    cut = [
        sample
        for rank in range(num_ranks)
        for part in micro_batches(spoilt, 0, 8, micro_batch, accumulation, rank, num_ranks, bad_values="skip")
        for sample in samples(part)
    ]
    came = [sample for part in whole for sample in part]
    assert len(came) == 64 and sorted(cut) == sorted(came)
    assert np.isfinite([first for _, first, _ in came]).all()
    bad = [w.trajectory == 0 and w.start + 2 + w.lead >= 4 for w in drawn]
    kept = [(coded_value(w.trajectory, w.start, 0, 0, 0), w.lead) for w, b in zip(drawn, bad, strict=True) if not b]
    assert 0 < sum(bad) < 64 and not Counter(kept) - Counter((first, lead) for _, first, lead in came)


@law("size", [2, 3], quick=[3])
def test_ranks_that_read_parts_skip_the_windows_that_one_process_skips(spoilt, size):
    how = {"bad_values": "skip", "further": lambda number: number % 3}
    whole = list(micro_batches(spoilt, 0, 8, 4, **how))

    def of_rank(rank, exchange):
        share = share_in((1, 1, 2, 4), rank, size)
        on_any = partial(on_any_of, SimpleNamespace(size=size), exchange)
        parts = micro_batches(
            spoilt, 0, 8, 4, share=share, on_any=on_any, finish=lambda number, it: (number, it), **how
        )
        return list(parts)

    for parts in Group(size).run(of_rank):
        assert [number for number, _ in parts] == list(range(8))
        for (part,), (batch,) in zip((it for _, it in parts), whole, strict=True):
            assert torch.equal(part.samples.lead_time, batch.lead_time) and part.pieces
            for piece in part.pieces:
                z, y, x = piece.cells
                assert torch.equal(piece.history, batch.history[piece.sample][..., z, y, x])
                assert torch.equal(piece.target, batch.target[piece.sample][..., z, y, x])


def test_windows_of_a_wholly_bad_set_end_the_run_with_its_name(tmp_path):
    path = write_seed_groups(tmp_path / "bad.h5", "shallow_water", num_frames=(6,))
    with h5py.File(path, "a") as file:
        file["0000/data"][...] = np.inf
    mixture = Mixture([open_dataset(path)], [(0,)], weights=[1], num_frames=3, lead_max=1, seed=0)
    with pytest.raises(DataError, match=r"bad\.h5, .* but none of 100 drawn from shallow_water is; repair"):
        next(micro_batches(mixture, 0, 1, 2, 1, 0, 1, bad_values="skip"))


@pytest.mark.parametrize("at_once", [1, 200, 2**26])
def test_windows_chosen_for_validation_leave_out_bad_ones(spoilt, at_once, monkeypatch):
    monkeypatch.setattr("matey.data.reading.AT_ONCE", at_once)
    windows = spread_windows(spoilt.sets[0], (0, 1), num_frames=3, lead=1, count=100)
    sound = sound_windows(spoilt.sets, windows, num_frames=3)
    assert sound == [w for w in windows if w.trajectory == 1 or w.start == 0]
    with pytest.raises(DataError, match=r"spoilt\.h5: expected windows free of NaN .*from shallow_water is; repair"):
        sound_windows(spoilt.sets, windows[2:4], num_frames=3)
