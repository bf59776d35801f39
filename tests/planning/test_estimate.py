"""Estimates of whole runs, and machine files."""

from functools import cache

import pytest
import yaml

from matey.config import ConfigError, load_config, load_deepspeed_config
from matey.parallel.engine import zero_settings
from matey.planning.estimate import estimate
from matey.planning.machine import load_machine, machine_names
from matey.planning.workload import Assumed, load_workload
from tests.support.paths import ROOT

PAPER = ROOT / "launch" / "runs" / "paper_pretrain_vit_b.yaml"
FRONTIER = load_machine("frontier")


@cache
def paper(*overrides, grid=(1, 128, 128), refined=0.2):
    run = load_config(PAPER, overrides)
    return run, load_workload(run, Assumed((grid,), refined), num_samples=2)


def engine(name="frontier_zero1"):
    return load_deepspeed_config(ROOT / "ds_configs" / f"{name}.json")


def plan(run, workload, nodes=92, config="frontier_zero1"):
    return estimate(run, engine(config), FRONTIER, ranks=8 * nodes, workload=workload)


def test_the_papers_run_has_the_papers_batch_and_fits_its_gpus():
    run, workload = paper()
    planned = plan(run, workload)
    assert planned.ranks == 736 and planned.samples_per_step == 1472
    assert planned.fits and planned.tokens_per_sample < 0.25 * workload.num_uniform_tokens
    # The textbook's operations of a transformer of 12 blocks with 768 values a token: 6 a weight, and attention.
    num, num_weights = planned.tokens_per_sample, workload.operations.num_parameters
    operations = planned.samples_per_step / planned.ranks * (6 * num_weights * num + 12 * 12 * 768 * num**2)
    assert planned.mfu == pytest.approx(operations / planned.seconds.total / FRONTIER.peak["bfloat16"], rel=0.1)
    assert planned.mfu == pytest.approx(0.11, rel=0.2) and planned.days == pytest.approx(0.137, rel=0.2)
    assert planned.days == pytest.approx(run.train.steps * planned.seconds.total / 86_400, rel=0.01)


def test_blocks_that_are_computed_again_make_a_step_longer_by_most_of_a_forward_pass():
    # With more samples than the paper's, so that operations decide and not the start of kernels outside the blocks.
    samples = "train.micro_batch=8"
    run, workload = paper("parallel.checkpoint_blocks=all", samples)
    plain, again = plan(*paper(samples)).seconds, plan(run, workload).seconds
    assert plain.recompute == 0 and 0.5 * plain.forward < again.recompute < plain.forward
    longer = again.recompute + again.waiting - plain.waiting
    assert again.total - plain.total == pytest.approx(longer, rel=1e-9)


def test_reduction_hides_behind_the_backward_pass_where_deepspeed_lets_it():
    run, workload = paper(grid=(1, 256, 256))
    config = engine()
    assert zero_settings(config).overlap_comm
    after = estimate(run, config, FRONTIER, ranks=92 * 8, workload=workload)
    config["zero_optimization"]["stage"] = 2
    in_one_bucket = estimate(run, config, FRONTIER, ranks=92 * 8, workload=workload)
    assert after.seconds.gradients == pytest.approx(in_one_bucket.seconds.gradients) and after.seconds.gradients > 0
    config["zero_optimization"]["reduce_bucket_size"] = 10_000_000
    in_nine = estimate(run, config, FRONTIER, ranks=92 * 8, workload=workload)
    (reduction,) = [exchange for exchange in in_nine.exchanges if exchange.purpose == "gradients"]
    assert in_nine.seconds.gradients == pytest.approx(reduction.seconds / 9)


def test_rolling_out_takes_forward_passes_and_their_exchanges():
    plain, rolled = (
        plan(*paper("train.micro_batch=1", "parallel.sequence_parallel_size=4", *settings), config="zero3")
        for settings in ((), ("train.unroll=4", "train.unroll_share=0.4"))
    )
    assert rolled.seconds.forward == pytest.approx(2 * plain.seconds.forward)  # 0.4 of them by 2.5 on average
    assert rolled.seconds.backward == plain.seconds.backward
    assert rolled.seconds.sequence == pytest.approx(1.5 * plain.seconds.sequence)
    once, twice = (max(e.num_bytes for e in of.exchanges if e.purpose == "weights") for of in (plain, rolled))
    assert twice == pytest.approx(2 * once)


def test_a_sequence_group_sends_what_its_plan_moves():
    run, workload = paper("train.micro_batch=1", "parallel.sequence_parallel_size=4")
    planned = plan(run, workload)
    borders, exchange = [e for e in planned.exchanges if e.purpose == "sequence"]
    assert exchange.kind == borders.kind == "all_to_all_single"
    # Into even shares and back to boxes, forward and backward: far less than the tokens of all blocks.
    assert borders.num_calls == 4 and 0 < borders.num_bytes < 0.05 * exchange.num_bytes
    # Twice forward and twice backward in each of 12 blocks, 4 n e / P values of bfloat16 each way.
    assert exchange.num_calls == 4 * 12
    assert exchange.num_bytes == pytest.approx(2 * 12 * 4 * planned.tokens_per_sample * 768 / 4 * 2)
    assert planned.seconds.sequence == exchange.seconds + borders.seconds > exchange.seconds > 0


def test_auto_takes_the_smallest_group_that_fits():
    limit = ["parallel.sequence_parallel_size=auto", "train.micro_batch=1"]
    run, workload = paper(*limit, "parallel.memory_limit=40")
    assert plan(run, workload).sequence_parallel_size == 1
    run, workload = paper(*limit, "parallel.memory_limit=0.15")
    assert plan(run, workload).sequence_parallel_size == 2
    assert plan(run, workload, config="zero1").sequence_parallel_size == 4


def test_the_machines_that_come_with_the_package_load():
    assert machine_names() == ["cpu", "dgx-h100", "frontier"]
    for name in machine_names():
        machine = load_machine(name)
        assert 0 < machine.rate("bfloat16") < machine.peak["bfloat16"]
    assert load_machine("frontier").nodes_of(736) == 92


def test_ranks_share_the_cores_of_a_cpu_and_no_more():
    cpu = load_machine("cpu")
    assert [cpu.nodes_of(ranks) for ranks in (1, 2, 4)] == [1, 1, 1]
    assert [cpu.devices_of_rank(ranks) for ranks in (1, 2, 4)] == [2, 1, 0.5]
    assert load_machine("frontier").devices_of_rank(4) == 1


def test_a_machine_of_ones_own_is_a_file(tmp_path):
    tree = load_machine("cpu").model_dump() | {"name": "mine", "num_nodes": 4, "shared_devices": False}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(tree))
    assert load_machine(path).nodes_of(7) == 4
    path.write_text(yaml.safe_dump(tree | {"latncy": 1}))
    with pytest.raises(ConfigError, match=r"mine.yaml: unknown key 'latncy'"):
        load_machine(path)
    path.write_text(yaml.safe_dump(tree | {"peak": {"float32": 1e12}}))
    with pytest.raises(ConfigError, match="each give a number for float32 and for bfloat16"):
        load_machine(path)
