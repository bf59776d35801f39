"""The benchmark's numbers, but for the times."""

import json
import sys
import time

import pytest

from matey.benchmark.step import Case, measure
from matey.commands.benchmark import case_of, sequence
from matey.tokens.tokenize import tokenize
from tests.support.programs import script, start


def step(*flags):
    return start([sys.executable, "tools/benchmark.py", "step", "--model", "micro", "--repeat", 1, *flags])


def test_a_step_is_one_line_of_json():
    began = time.monotonic()
    result = step("--tokens", "mix", "--patches", "16,8", "--refine", "0.25", "--grid", "64,64", "--frames", "2")
    assert result.returncode == 0, result.stderr
    row = json.loads(result.stdout.splitlines()[-1])
    assert row["num_tokens"] == 2 * (12 + 4 * 4)
    assert 0 < row["step_seconds"] < time.monotonic() - began
    assert row["peak_memory_bytes"] > 2**20
    assert row["matmul_share"] > 0


@pytest.mark.whole
def test_the_operations_of_a_step_are_those_of_its_matrix_products():
    (speed,) = measure([Case("micro", grid=(32, 32), frames=2, fields=2, batch=1)], 1)
    n, e, blocks = 2 * 16, 96, 2
    in_blocks = blocks * (2 * n * 12 * e * e + 4 * n * n * e)
    in_maps = 4 * 2 * n * 9 * e * e
    fields, window, near, channels = 2, 25, 9, 24
    of_cell = 4 * near * channels**2 + 2 * window * fields * (channels + fields) + near * channels * fields
    products = in_blocks + in_maps + 2 * 32**2 * of_cell
    assert 3 * products < speed.model_flops < 3.5 * products


@pytest.fixture
def benchmark():
    """The tool as a module."""
    return script("tools/benchmark.py")


def test_sets_of_several_levels_have_patches_to_split(benchmark):
    def case(*flags):
        args = benchmark.parser().parse_args(["sequence", *flags])
        benchmark.set_patches(args)
        return case_of(args)

    assert case().patches == (8,) and case("--tokens", "mix").patches == case("--tokens", "mul").patches == (32, 8)
    mixed = case("--tokens", "mix", "--grid", "256,256")
    config = mixed.make_config()
    tokens = tokenize([mixed.make_batch()], config.patches, config.refinement).layout
    assert set(tokens.level.tolist()) == {0, 1}


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.usefixtures("forked")
def test_a_table_sets_each_size_of_a_sequence_group_beside_one_process(benchmark, tmp_path):
    flags = ["--model", "micro", "--grid", "32,32", "--frames", "2", "--fields", "1", "--repeat", "1", "--ranks", "1,2"]
    args = benchmark.parser().parse_args(["sequence", *flags, "--out", str(tmp_path)])
    benchmark.set_patches(args)
    one, two = sequence(args)
    assert (one["ranks"], two["ranks"], one["num_tokens"]) == (1, 2, 32)
    assert one["longest_over_one"] == one["cpu_over_one"] == 1 and two["longest_over_one"] > 0
