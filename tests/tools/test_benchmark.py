"""The benchmark's numbers, but for the times."""

import csv
import json
import sys
import time
from dataclasses import replace

import pytest

from matey.benchmark.step import Case, cases_of_sweep, measure
from matey.commands.benchmark import case_of, sequence
from matey.tokens.tokenize import tokenize
from tests.support.commands import script
from tests.support.programs import start


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


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--grid", "0,0"], "--grid: expected a whole number from 1"),
        (["--fields", "0"], "--fields: expected a whole number from 1"),
        (["--refine", "nan"], "--refine: expected a number from 0 to 1, got 'nan'"),
    ],
)
def test_a_senseless_case_is_a_sentence(flags, words, benchmark, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "step", *flags])
    with pytest.raises(SystemExit) as left:
        benchmark.main()
    assert left.value.code == 2 and words in capsys.readouterr().err


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
    assert case("--grid", "96,96,96").patches == (16,) and case("--tokens", "mix", "--grid", "64,64,64").patches == (
        32,
        16,
    )
    assert case("--tokens", "mix", "--patches", "16,4").patches == (16, 4)
    mixed = case("--tokens", "mix", "--grid", "256,256")
    config = mixed.make_config()
    tokens = tokenize([mixed.make_batch()], config.patches, config.refinement).layout
    assert set(tokens.level.tolist()) == {0, 1}


@pytest.mark.slow
def test_the_sweep_writes_a_table(benchmark, tmp_path, monkeypatch, capsys):
    smaller = [
        [replace(case, model="micro", grid=tuple(side // 2 for side in case.grid)) for case in cases]
        for cases in cases_of_sweep()
    ]
    monkeypatch.setattr("matey.commands.benchmark.cases_of_sweep", lambda: smaller)
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "step", "--sweep", "--repeat", "1", "--out", str(tmp_path)])
    assert benchmark.main() == 0
    with (tmp_path / "step.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(map(len, smaller))
    assert "32,16,8" in capsys.readouterr().out


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
