"""What a step takes: bytes and calls, counted on real ranks, and time."""

import json
import time

import pytest
import torch

from matey.benchmark.step import Case, run_point
from matey.parallel.meter import Meter
from tests.support.programs import TWO_RANKS
from tests.support.runs import pretrain, succeed


@pytest.mark.processes
@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("network", [pytest.param("paper", marks=pytest.mark.slow), "matey"])
def test_tokens_for_heads_take_two_exchanges_a_block_of_the_formulas_bytes(network):
    case = Case("S", grid=(48, 40), frames=3, fields=2, batch=1, network=network)
    point = run_point(case, 2)
    assert point["num_tokens"] == 3 * 6 * 5 and point["num_blocks"] == 12
    for direction in ("traffic_forward", "traffic_backward"):
        exchanged = point[direction]["all_to_all_single"]
        # One more leads tokens from boxes to even shares, and one back; and one to neighbours, for each map and block.
        assert exchanged["calls"] == 2 * 12 + 2 + (4 + 12) * (network == "matey")
        formula = 12 * 4 * point["num_tokens"] * point["width"] / 2 * 4
        assert formula <= exchanged["bytes"] <= (1.05 if network == "paper" else 1.5) * formula
        assert "all_gather_into_tensor" not in point[direction]


@pytest.mark.processes
@pytest.mark.usefixtures("forked")
def test_with_too_few_heads_keys_and_values_are_gathered_and_gradients_scattered():
    point = run_point(Case("micro", grid=(48, 40), frames=3, fields=2, batch=1), 2)
    own = 2 * point["num_tokens"] * point["width"] * 4 * point["num_blocks"] / 2
    assert point["traffic_forward"]["all_gather_into_tensor"]["bytes"] == own
    assert point["traffic_backward"]["all_gather_into_tensor"]["bytes"] == own
    # What is handed over in the decoding goes back as well, and over gloo sums are scattered by an exchange.
    there, back = (point[way]["all_to_all_single"]["bytes"] for way in ("traffic_forward", "traffic_backward"))
    assert back - there == 2 * own


def test_a_run_logs_the_bytes_and_calls_of_every_step(run_yaml, tmp_path):
    counting = {"zero_optimization": {"stage": 1}, "comms_logger": {"enabled": True, "prof_all": True}}
    (tmp_path / "ds.json").write_text(json.dumps(counting))
    config = run_yaml(parallel={"sequence_parallel_size": 2}, train={"steps": 2, "validate_every": 1})
    succeed(pretrain(config, launcher=TWO_RANKS, deepspeed_config=tmp_path / "ds.json"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [line["traffic"] for line in lines if "traffic" in line]
    assert len(steps) == 2
    reduced = [traffic["all_reduce"] for traffic in steps]
    assert reduced[0] == reduced[1] | {"seconds": reduced[0]["seconds"]}  # the validation between them is of neither
    gathered = [traffic["all_gather_into_tensor"] for traffic in steps]
    assert all(each["calls"] >= 2 and each["bytes"] > 0 for each in gathered)  # of the optimizer
    # And of keys and values, where the cut goes through a sample: between two of one length it does not.
    assert max(each["calls"] for each in gathered) >= 4


def test_the_parts_of_a_step_add_up_to_it_and_a_part_may_come_twice():
    meter = Meter(torch.device("cpu"))
    for part, seconds in (("forward", 0.02), ("backward", 0.01), ("forward", 0.03)):
        time.sleep(seconds)
        meter.mark(part)
    parts = meter.read().numbers()["seconds_by_part"]
    assert list(parts) == ["forward", "backward"]
    assert parts["forward"] >= 0.05 and parts["backward"] >= 0.01
    assert sum(parts.values()) <= meter.seconds()


def test_cpu_time_is_that_of_work_and_not_of_waiting():
    meter = Meter(torch.device("cpu"))
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    worked = meter.read().numbers()["cpu_seconds"]
    meter.start()
    time.sleep(0.05)
    assert worked >= 0.05 > meter.read().numbers()["cpu_seconds"]
