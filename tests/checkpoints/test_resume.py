"""Checkpoints of every ZeRO stage, and what goes on from them: the next losses, the optimizer's state, the average."""

from itertools import cycle
from pathlib import Path

import pytest
import torch

from matey.checkpoints.source import AVERAGE, MOMENTS, WEIGHTS, find_checkpoint
from tests.checkpoints.running import MORE, run_cases


def hold_saved(seen):
    """The average is that of whole weights, and putting it in the weights' place leaves no trace."""
    for name, case in seen.items():
        if name.startswith("save"):
            assert case["average_off"] < 1e-6 < case["average_moved"], name
            assert case["restored"] == 0, name


def hold_resumed(root, saved, resumed):
    """Resumed runs hold the weights, moments and average that were saved to the last bit, and go on to the same losses."""
    for name, case in resumed.items():
        if not name.startswith("resume"):
            continue
        kind = name.split()[2].removesuffix("_universal")
        expected = saved[f"save {kind}"]["losses"]
        # Every rounding of bfloat16 falls otherwise where a batch is cut otherwise: one is a 256th part.
        assert case["losses"] == pytest.approx(expected, rel=2**-8 if "bf16" in kind else 1e-6), name
        # Muon's matrices are a group of their own.
        decays = [0.1, 0.1, 0.0] if "muon" in kind else [0.1, 0.0]
        assert (case["decays"], case["adam_steps"], case["best"]) == (decays, [5], 0.25), name
        # Of an empty older and an empty later checkpoint and the one saved, one was to be kept.
        assert case["kept"] == ["step_000003"], name
        one, two = (find_checkpoint(Path(folder))[0] for folder in (root / kind, case["again"]))
        assert one.step == two.step == 3
        for what in (WEIGHTS, *MOMENTS, AVERAGE):
            before, after = one.whole(what), two.whole(what)
            assert set(before) == set(after) == set(one.shapes_with(what))
            assert all(torch.equal(before[key], after[key]) for key in before), (name, what)
        before, after = one.frozen(), two.frozen()
        assert all(torch.equal(before[key], after[key]) for key in {*before, *after}), name


def test_the_average_is_that_of_whole_weights_and_leaves_no_trace_in_them(two_ranks):
    hold_saved(two_ranks[1])


def test_a_checkpoint_of_other_ranks_or_stage_is_refused_and_its_conversion_named(two_ranks):
    root, seen = two_ranks
    said = seen["resume zero1 zero3 1"]["refused"]
    assert "was saved by 2 ranks with ZeRO 3, and this run has 2 ranks with ZeRO 1 or 2" in said
    command = f"matey convert {root}/zero3 --to universal --out {root}/zero3_universal"
    assert command in said and f"--resume --set output.dir={root}/zero3_universal" in said


def hold_gone_on(root, seen, kind):
    name = f"resume {kind} {kind} 1"
    hold_resumed(root, seen, {name: seen[name]})
    assert seen[name]["losses"] == seen[f"save {kind}"]["losses"]


@pytest.mark.parametrize("kind", ["zero3", "bf16_1"])
def test_the_same_ranks_and_stage_go_on_bit_for_bit_average_included(two_ranks, kind):
    hold_gone_on(*two_ranks, kind)


@pytest.mark.slow
def test_the_other_stages_in_bf16_and_a_sequence_group_with_muon_go_on_as_well(more_of_two_ranks):
    root, seen = more_of_two_ranks
    hold_saved(seen)
    for kind in ("muon1", *MORE):
        hold_gone_on(root, seen, kind)
    name = "resume muon3 muon1_universal 2"
    hold_resumed(root, seen, {name: seen[name]})


def test_a_sequence_group_and_one_rank_resume_what_two_ranks_saved_in_another_stage(two_ranks):
    root, seen = two_ranks
    name = "resume zero1 zero3_universal 2"
    hold_resumed(root, seen, {name: seen[name]})
    pairs = (("zero1", "zero3"), ("zero3", "zero0"), ("muon0", "muon1"))
    cases = [["resume", kind, f"{saved}_universal", 1] for kind, saved in pairs]
    hold_resumed(root, seen, run_cases(1, cases, root))


def every_pair_once(others):
    """Of ranks that saved, 1 or 2, and of new ones, 1, 2 or 4: which kind goes on from which.

    A universal checkpoint is read alike whoever wrote it. So each kind goes on from its own, saved by 1 rank and by 2, and from
    others, saved by 1 or by 2, in turn on each number of new ranks, and comes to all of these.
    """
    chosen = {(num_ranks, new_ranks): [] for num_ranks in (1, 2) for new_ranks in (1, 2, 4)}
    turns = {kind: cycle(((1, 2, 4), (2, 4, 1), (4, 1, 2))[at % 3]) for at, kind in enumerate(others)}
    for num_ranks in (1, 2):
        for at, (source, targets) in enumerate(others.items()):
            for kind in (source, *targets[(at + num_ranks) % 2 :: 2]):
                chosen[num_ranks, next(turns[kind])].append((kind, source))
    for new_ranks in (1, 2, 4):
        assert {kind for num_ranks in (1, 2) for kind, _ in chosen[num_ranks, new_ranks]} == {*others}
    return chosen


@pytest.mark.slow
def test_any_stage_ranks_and_sequence_group_goes_on_from_any_other(tmp_path):
    others = {"zero0": ["zero3"], "zero1": ["zero3", "zero0"], "zero2": ["zero1"], "zero3": ["zero1", "zero2"]}
    others |= {"frozen1": ["frozen3"], "frozen3": ["frozen1"]}
    others |= {"lora0": ["lora1"], "lora1": ["lora3"], "lora3": ["lora0"]}
    others |= {"bf16_1": ["bf16_3"], "bf16_2": ["bf16_1"], "bf16_3": ["bf16_2"]}
    others |= {"muon0": ["muon3"], "muon1": ["muon0"], "muon3": ["muon_offload2"], "muon_offload2": ["muon1"]}
    others |= {"muon_bf16_1": ["muon_bf16_1"]}  # twice, which has no other: on all numbers of new ranks
    others |= {"offload2": ["zero3", "offload3"], "offload3": ["offload2", "offload_all"], "offload_all": ["zero3"]}
    chosen = every_pair_once(others)
    for num_ranks in (1, 2):
        root = tmp_path / str(num_ranks)
        saved = run_cases(num_ranks, [["save", kind] for kind in others], root)
        hold_saved(saved)
        # One rank's checkpoints go on in the smaller groups of new ranks, those of two ranks in the larger.
        for new_ranks, size in ((1, 1), (2, num_ranks), (4, 2 * num_ranks)):
            pairs = chosen[num_ranks, new_ranks]
            resumed = run_cases(
                new_ranks, [["resume", kind, f"{source}_universal", size] for kind, source in pairs], root
            )
            assert len(resumed) == len(pairs)
            hold_resumed(root, saved, resumed)
