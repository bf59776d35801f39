"""tools/fit_machine.py: from what a job printed to a machine file."""

import importlib.util
import json
import sys

import pytest

from matey.planning.collectives import KINDS, Group, seconds
from matey.planning.machine import load_machine
from tests.support.paths import ROOT

FRONTIER = load_machine("frontier")


@pytest.fixture
def fit_machine(monkeypatch, capsys):
    """Run the tool's main here; returns its exit code and what it printed."""
    spec = importlib.util.spec_from_file_location("fit_machine_tool", ROOT / "tools" / "fit_machine.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fit_machine.py", *map(str, arguments)])
        code = tool.main()
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def job_log(path, nodes, sizes=(1024, 2**20, 2**24)):
    """What a job prints whose collectives take what Frontier's file says, between other lines."""
    lines = ["Loading modules", '{"loss": 1.0}', "{'not': 'json'}", "17", ""]
    for kind in KINDS:
        for size in sizes:
            took = seconds(kind, size, Group(8 * nodes, 8), FRONTIER)
            point = {"kind": kind, "num_bytes": size, "num_ranks": 8 * nodes, "ranks_on_node": 8, "seconds": took}
            lines.append(json.dumps(point))
    path.write_text("\n".join(lines))
    return path


def test_links_are_fitted_to_the_points_that_jobs_printed_among_other_lines(fit_machine, tmp_path):
    logs = [job_log(tmp_path / "one.jsonl", 1), job_log(tmp_path / "four.jsonl", 4)]
    code, printed, errors = fit_machine("--machine", "cpu", "--points", *logs, "--out", tmp_path / "mine.yaml")
    assert code == 0, errors
    found = load_machine(tmp_path / "mine.yaml")
    for link, expected in ((found.inside, FRONTIER.inside), (found.between, FRONTIER.between)):
        assert link.latency == pytest.approx(expected.latency, rel=0.01)
        assert link.bandwidth == pytest.approx(expected.bandwidth, rel=0.01)
    assert found.memory == load_machine("cpu").memory and "30 collectives" in found.name
    assert f"latency {FRONTIER.between.latency * 1e6:.1f} us" in printed


def test_what_no_links_can_be_fitted_to_is_one_sentence(fit_machine, tmp_path):
    out = tmp_path / "mine.yaml"
    few = job_log(tmp_path / "few.jsonl", 1, sizes=(1024,))
    none = tmp_path / "none.jsonl"
    none.write_text("Traceback\n")
    for source, words in (
        (("--ranks", 1), "at least two ranks, got --ranks 1."),
        (("--ranks", 0), "at least two ranks, got --ranks 0."),
        (("--points", few), "fitted to messages of several sizes"),
        (("--points", none), "no line that matey.parallel.collective_speed printed"),
        (("--points", tmp_path / "nowhere.jsonl"), "Cannot open"),
    ):
        code, _, errors = fit_machine("--machine", "cpu", *source, "--out", out)
        assert code == 2 and words in errors and errors.startswith("error: ") and errors.count("\n") == 1, errors
    assert not out.exists()
