"""Main memory that is planned for a preparation, beside what a fresh process takes for it."""

import json
import sys
from dataclasses import replace

import pytest

from matey.benchmark.speed_cases import Case
from matey.model.prepare import prepare
from matey.nested import num_bytes_of
from matey.planning.machine import load_machine
from matey.planning.memory import ready_bytes
from matey.planning.preparation import pinned_bytes, preparation_bytes, waiting_bytes
from matey.planning.workload import Workload
from tests.support.planned import samples_of
from tests.support.programs import cases_of, start, start_ranks
from tests.support.proved import PROVED

CASES = [
    Case("micro", grid=(512, 512), batch=1),
    Case("micro", grid=(384, 384), batch=2, frames=2, fields=8, scheme="avit"),
    Case("micro", grid=(512, 512), batch=1, frames=2, fields=1, patches=(4,)),
    Case("micro", grid=(512, 512), batch=1, frames=16, fields=2, tokens="mul", patches=(32, 8)),
    Case("micro", grid=(64, 64, 64), batch=1, tokens="mix", patches=(16, 8)),
    Case("micro", grid=(64, 64, 64), batch=1, frames=8, fields=1, tokens="mix", patches=(16, 8)),
]
SHARED = [
    Case("micro", grid=(96, 96, 96), batch=1, patches=(12,), patch_frames=4),
    Case("micro", grid=(96, 96, 96), batch=1, tokens="mix", patches=(24, 12), patch_frames=4),
    Case("micro", grid=(64, 64, 64), batch=1, frames=8, fields=2, tokens="mul", patches=(16, 8)),
    Case("micro", grid=(512, 512), batch=2, frames=16, fields=2, tokens="mul", patches=(32, 8)),
]
WITHOUT_LOCAL = Case("micro", grid=(512, 512), batch=1, frames=2, tokens="mix", patches=(128, 32), local="none")
UNEVEN = Case("micro", grid=(84, 84, 84), batch=1, patches=(12,), patch_frames=4)
CHUNK = (24, 84, 84)  # two layers of bricks, of seven: of two ranks, the first reads four
MEASURE = """
import json, sys
import torch
from matey.benchmark.machine import memory, return_freed_memory
from matey.benchmark.speed_cases import Case
from matey.model.prepare import prepare
torch.set_num_threads(1)
return_freed_memory(at_once=True)
prepare([Case("micro", grid=(32, 32)).make_batch()], Case("micro").make_config())  # reads in the libraries' code
for settings in json.loads(sys.argv[1]):
    case = Case.from_json(settings)
    batch, config = case.make_batch(), case.make_config()
    before = memory("cpu")
    prepared = prepare([batch], config)
    print(memory("cpu", peak=True) - before)
    del prepared
"""


# In the plane and in space, one patch size and two; the others with the slow tests.
@pytest.mark.parametrize(
    "cases",
    [[CASES[0], *CASES[3:5]], pytest.param([*CASES[1:3], CASES[5]], marks=pytest.mark.slow)],
    ids=["some", "others"],
)
def test_a_preparation_takes_the_memory_that_is_planned(cases):
    result = start([sys.executable, "-c", MEASURE, json.dumps([case.to_json() for case in cases])], timeout=600)
    assert result.returncode == 0, result.stderr
    for case, peak in zip(cases, map(int, result.stdout.split()), strict=True):
        config = case.make_config()
        samples = tuple(samples_of(case.make_batch(), config))
        planned = preparation_bytes(Workload(config, samples), case.batch, 1)
        measured = peak + case.batch * samples[0].num_bytes  # the fields are there already
        PROVED.append(f"{case.tokens} {case.grid}: planned over measured preparation {planned / measured:.2f}")
        assert planned == pytest.approx(measured, rel=0.15), case


@pytest.mark.parametrize(
    ("ways", "cases"),
    [
        (2, [(SHARED[1], {}), (WITHOUT_LOCAL, {}), (SHARED[0], {"axes": "xyz"})]),
        pytest.param(4, [(case, {}) for case in SHARED], marks=pytest.mark.slow),
        pytest.param(2, [(UNEVEN, {"chunk": CHUNK})], marks=pytest.mark.slow),
        pytest.param(2, [(SHARED[1], {"unrolled": True, "axes": "xyz"})], marks=pytest.mark.slow),
    ],
    ids=["two", "four_all", "two_chunks", "two_unrolled"],
)
def test_each_rank_that_reads_and_prepares_its_part_takes_the_memory_that_is_planned(ways, cases):
    asked = json.dumps([(case.to_json(), how) for case, how in cases])
    result = start_ranks(ways, "-m", "tests.planning.preparation_case", asked, timeout=600)
    for (case, how), peaks in zip(cases, cases_of(result), strict=True):
        config = case.make_config()
        of_file = {"chunk": how.get("chunk"), "is_scattered": "axes" in how}
        sample = replace(samples_of(case.make_batch(), config)[0], **of_file)
        planned = preparation_bytes(Workload(config, (sample,)), case.batch, ways, unrolled="unrolled" in how)
        PROVED.append(
            f"{case.tokens} {case.grid} on {ways} ranks, {how}: planned over measured {planned / max(peaks):.2f}"
        )
        assert planned == pytest.approx(max(peaks), rel=0.15), (case, how, peaks)


@pytest.mark.whole
def test_parts_that_end_with_chunks_are_planned_as_they_are_read():
    config = UNEVEN.make_config()
    (sample,) = samples_of(UNEVEN.make_batch(), config)
    as_rows, as_chunks, scattered = (
        Workload(config, (replace(sample, chunk=chunk),)) for chunk in (None, CHUNK, (60, 84, 84))
    )
    waiting = [waiting_bytes(workload, 1, 2, 1) / sample.num_bytes / 2 for workload in (as_rows, as_chunks, scattered)]
    assert waiting == pytest.approx([175 / 343, 196 / 343, 175 / 343])  # five layers of seven would be too uneven
    assert preparation_bytes(as_chunks, 1, 2) > 1.02 * preparation_bytes(as_rows, 1, 2)
    of_both = Workload(config, (*as_chunks.samples, *as_rows.samples))
    assert preparation_bytes(of_both, 1, 2) == preparation_bytes(as_chunks, 1, 2)
    assert preparation_bytes(as_rows, 1, 2, unrolled=True) > 1.1 * preparation_bytes(as_rows, 1, 2)


@pytest.mark.whole
def test_what_ranks_send_each_other_as_it_was_read_is_planned():
    case = SHARED[0]
    config = case.make_config()
    (sample,) = samples_of(case.make_batch(), config)
    turned, workload = replace(sample, is_scattered=True), Workload(config, (sample,))
    in_columns = Workload(config, (turned,))
    assert preparation_bytes(in_columns, 1, 2) > 1.05 * preparation_bytes(workload, 1, 2)
    assert preparation_bytes(in_columns, 2, 2) == preparation_bytes(workload, 2, 2)  # a sample for each rank
    of_both = Workload(config, (turned, sample))
    assert preparation_bytes(of_both, 1, 2) == preparation_bytes(in_columns, 1, 2)


def test_two_micro_batches_wait_for_each_worker():
    case = CASES[0]
    config = case.make_config()
    samples = tuple(samples_of(case.make_batch(), config))
    workload = Workload(config, samples)
    assert waiting_bytes(workload, 1, 1, 0) == 0
    assert waiting_bytes(workload, 3, 4, 5) == 2 * 5 * 3 * samples[0].num_bytes / 4  # as they were read
    num_bytes = num_bytes_of(prepare([case.make_batch()], config))
    assert waiting_bytes(workload, 1, 1, 1) == pytest.approx(2 * num_bytes, rel=0.15)
    assert ready_bytes(workload, 1, 1) == pytest.approx(num_bytes, rel=0.15)


def test_what_a_gpu_copies_from_is_counted_and_a_large_micro_batch_is_not_pinned():
    case, gpu = CASES[0], load_machine("frontier")
    workload = Workload(case.make_config(), tuple(samples_of(case.make_batch(), case.make_config())))
    num_bytes = ready_bytes(workload, 2, 1)
    assert num_bytes <= pinned_bytes(workload, 2, 1, gpu) < 2 * num_bytes
    assert pinned_bytes(workload, 2, 1, gpu.model_copy(update={"memory": 7 * num_bytes})) == 0
    assert pinned_bytes(workload, 2, 1, load_machine("cpu")) == 0
