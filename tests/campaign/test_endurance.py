"""A long run in one process: memory, descriptors and threads are level after its first part."""

import time

import psutil
import pytest
import yaml

from tests.campaign.moments import Kind, last_step, scaled, started, training, write_config

NUM_STEPS, FIRST = 10_000, 1_000
HELD = "{count} steps in one process, level in memory, descriptors and threads"
# What the allocator may have held back more, by the end, than it had after the first part: up to 10 MiB in twice the steps.
SLACK_BYTES = 12 * 2**20

pytestmark = pytest.mark.slow


def test_memory_descriptors_and_threads_are_level_after_the_first_steps(tmp_path, data, held):
    num_steps = scaled(NUM_STEPS)
    first = FIRST * num_steps // NUM_STEPS
    every = max(1, first // 4)
    settings = {"steps": num_steps, "micro_batch": 1, "log_every": max(1, first // 20)}
    settings |= {"validate_every": every, "checkpoint_every": every}
    folder, kind = tmp_path / "case", Kind(1, 1, 0)
    config = write_config(folder, data, kind, **settings)
    tree = yaml.safe_load(config.read_text())
    tree["tokens"]["patches"] = [[1, 1, 16, 16]]
    config.write_text(yaml.safe_dump(tree))
    seen = []
    with started(folder, training(folder, kind)) as ranks:
        process, until = psutil.Process(ranks.programs[0].pid), time.monotonic() + 7200
        while not ranks.has_ended():
            try:
                usage = (process.memory_info().rss, process.num_fds(), process.num_threads())
            except psutil.NoSuchProcess:
                break
            assert time.monotonic() < until, ranks.text()
            seen.append((last_step(ranks.run), usage))
            time.sleep(0.2)
        assert ranks.codes(60) == [0], ranks.text()
    early = [usage for step, usage in seen if 0 < step <= first]
    late = [usage for step, usage in seen if step > first]
    assert early and late, f"too few looks: {len(early)} and {len(late)}"
    memory, descriptors, threads = map(max, zip(*early, strict=True))
    most = max(usage[0] for usage in late)
    assert most <= memory + SLACK_BYTES, f"{memory:,} bytes grew to {most:,}"
    # A look falls into a save now and then, when more is open. What leaks with each of the 40 saves stays open between them.
    kept = [min(usage[which] for usage in late[-len(late) // 4 :]) for which in (1, 2)]
    assert kept[0] <= descriptors and kept[1] <= threads, (descriptors, threads, kept)
    held[f"{(most - memory) / 2**20:+.1f} MiB after the first {first}"] += num_steps
