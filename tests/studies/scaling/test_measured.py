"""What is read from the metrics of a run."""

import json

import pytest

from matey.studies.scaling.measured import last_step, read_measured


def line(step, seconds, traffic=None, **more):
    parts = {"data": 0.1 * seconds, "forward": 0.3 * seconds, "backward": 0.6 * seconds}
    numbers = {
        "num_tokens": 100,
        "seconds": seconds,
        "seconds_by_part": parts,
        "cpu_seconds": 2 * seconds,
        "num_cores": 2.0,
        "peak_memory_bytes": 1000 + step,
        "total_memory_bytes": 2000 + step,
        **more,
    }
    return {"step": step, **numbers} | ({"traffic": traffic} if traffic else {})


def write(path, *lines):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    return path


def test_warm_up_and_counted_steps_are_not_timed(tmp_path):
    traffic = {
        "all_reduce": {"bytes": 80, "calls": 2, "seconds": 3.0},
        "broadcast": {"bytes": 1, "calls": 1, "seconds": 1.0},
    }
    lines = [line(1, 50.0), line(2, 1.0), line(3, 2.0), line(4, 4.0), line(5, 8.0, traffic), line(6, 16.0, traffic)]
    metrics = write(tmp_path / "metrics.jsonl", *lines, {"step": 6, "valid_nrmse": 0.1})
    found = read_measured(metrics, 1, 10, "cpu", 2)
    assert found.steps == 3 and found.samples_per_second == 5
    assert (found.seconds_low, found.seconds, found.seconds_high) == (1.5, 2.0, 3.0)
    assert found.tokens_per_second == 50
    assert found.seconds_by_part == pytest.approx({"data": 0.2, "forward": 0.6, "backward": 1.2})
    assert found.cpu_seconds == 4.0
    assert found.communication_share == pytest.approx((4 / 8 + 4 / 16) / 2)
    assert found.traffic == traffic and found.bytes_sent == 81
    assert (found.peak_memory_bytes, found.total_memory_bytes) == (1006, 2006)


def test_where_all_steps_were_counted_they_are_timed(tmp_path):
    traffic = {"all_reduce": {"bytes": 80, "calls": 2, "seconds": 0.5}}
    metrics = write(tmp_path / "metrics.jsonl", *(line(step, 1.0, traffic) for step in range(1, 5)))
    assert read_measured(metrics, 2, 1, "cpu", 2).steps == 2


def test_a_kind_that_some_steps_lack_counts_as_nothing_there(tmp_path):
    some, none = (
        {"all_reduce": {"bytes": 80, "calls": 2, "seconds": 0.5}},
        {"broadcast": {"bytes": 4, "calls": 1, "seconds": 0.1}},
    )
    metrics = write(tmp_path / "metrics.jsonl", line(1, 1.0, some), line(2, 1.0, none), line(3, 1.0, none))
    assert read_measured(metrics, 0, 1, "cpu", 2).traffic["all_reduce"]["bytes"] == 0


def test_a_run_that_was_cut_off_has_what_it_wrote(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    assert last_step(metrics) == 0 and read_measured(metrics, 0, 1, "cpu", 2) is None
    write(metrics, line(1, 1.0), line(2, 1.0))
    metrics.write_text(metrics.read_text() + '{"step": 3, "sec')
    assert last_step(metrics) == 2
    assert read_measured(metrics, 1, 1, "cpu", 2).steps == 1 and read_measured(metrics, 2, 1, "cpu", 2) is None
