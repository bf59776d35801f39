"""Main memory that is planned to read and prepare, beside what a fresh process takes."""

import json
import sys

import pytest

from matey.benchmark.step import Case
from matey.planning.memory import main_memory, read_bytes
from matey.planning.workload import Workload
from tests.support.laws import PROVED
from tests.support.models import samples_of
from tests.support.programs import cases_of, start, start_ranks

CASES = [
    Case("micro", grid=(512, 512), batch=1),
    Case("micro", grid=(512, 512), batch=1, frames=16, fields=2, tokens="mul", patches=(32, 8)),
    Case("micro", grid=(64, 64, 64), batch=1, tokens="mix", patches=(16, 8)),
]
SHARED = Case("micro", grid=(96, 96, 96), batch=1, tokens="mix", patches=(24, 12), patch_frames=4)
WITHOUT_CELLS = Case("micro", grid=(512, 512), batch=1, frames=2, tokens="mix", patches=(128, 32), network="paper")
MEASURE = """
import json, sys
import torch
from matey.benchmark.step import memory, return_freed_memory
from matey.benchmark.step import Case
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


# In the plane and in space, one patch size and two.
def test_a_preparation_takes_the_memory_that_is_planned():
    result = start([sys.executable, "-c", MEASURE, json.dumps([case.to_json() for case in CASES])], timeout=600)
    assert result.returncode == 0, result.stderr
    for case, peak in zip(CASES, map(int, result.stdout.split()), strict=True):
        config = case.make_config()
        samples = tuple(samples_of(case.make_batch(), config))
        measured = peak + case.batch * samples[0].num_bytes  # the fields are there already
        compare(f"{case.tokens} {case.grid}", Workload(config, samples), case, 1, measured)


def test_each_rank_that_reads_and_prepares_its_part_takes_the_memory_that_is_planned():
    cases = [SHARED, WITHOUT_CELLS]
    asked = json.dumps([case.to_json() for case in cases])
    result = start_ranks(2, "-m", "tests.planning.preparation_case", asked, timeout=600)
    for case, peaks in zip(cases, cases_of(result), strict=True):
        config = case.make_config()
        sample = samples_of(case.make_batch(), config)[0]
        compare(f"{case.tokens} {case.grid} on 2 ranks", Workload(config, (sample,)), case, 2, max(peaks))


def compare(name, workload, case, ways, measured):
    planned = main_memory(workload, case.batch, ways, workers=0)
    PROVED.append(f"{name}: planned over measured preparation {planned / measured:.2f}")
    assert 0.9 * measured < planned < 1.9 * measured, name


@pytest.mark.parametrize("ways", [1, 4])
def test_a_rank_reads_its_part(ways):
    case = Case("micro", grid=(64, 64), batch=1, network="paper")
    config = case.make_config()
    (sample,) = samples_of(case.make_batch(), config)
    workload = Workload(config, (sample,))
    assert read_bytes(workload, 1, ways) == sample.num_bytes / ways
    assert read_bytes(workload, 4, 4) == sample.num_bytes  # a sample of four for each of four ranks
