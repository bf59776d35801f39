"""The points of a study: what stays the same from one to the next."""

import json

import pytest
import torch

from matey.benchmark.sequence_speed import longer
from matey.benchmark.speed_cases import Case
from matey.config import ConfigError, load_config
from matey.model.configuration import SIZES
from matey.studies.folder import StudyError
from matey.studies.scaling.lengths import Lengths, lengths_of
from matey.studies.scaling.study import COUNTED_STEPS, Study, load_study, make_points, runs_of, timed


@pytest.fixture
def run(run_yaml):
    return load_config(run_yaml(train={"micro_batch": 6, "accumulation": 2}))


def batch(run, point):
    groups = point.ranks // run.parallel.sequence_parallel_size
    return run.train.micro_batch * run.train.accumulation * groups


def test_weak_keeps_the_samples_of_a_rank(run):
    points = make_points([4, 1, 2, 2], None)
    assert [point.name for point in points] == ["ranks_1", "ranks_2", "ranks_4"]
    assert [batch(own, point) for own, point in zip(runs_of("weak", run, points), points, strict=True)] == [12, 24, 48]


def test_strong_keeps_the_global_batch_in_micro_batches_no_larger_than_the_runs(run):
    points = make_points([1, 2, 3, 4], None)
    runs = runs_of("strong", run, points)
    assert [batch(own, point) for own, point in zip(runs, points, strict=True)] == [12] * 4
    assert [(own.train.micro_batch, own.train.accumulation) for own in runs] == [(6, 2), (6, 1), (4, 1), (3, 1)]


def test_a_global_batch_that_cannot_be_shared_out_names_the_nearest_that_can(run):
    with pytest.raises(ConfigError, match="96 samples cannot be divided evenly among the 736 groups.*multiple of 736"):
        runs_of("strong", run, make_points([1, 92], 8))


def test_sequence_shares_one_sample_among_all_ranks(run):
    points = make_points([1, 4], None)
    assert [batch(own, point) for own, point in zip(runs_of("sequence", run, points), points, strict=True)] == [1, 1]


def test_sequence_groups_must_divide_every_point(run_yaml):
    points = make_points([2, 4, 6], None)
    with pytest.raises(ConfigError, match="is 4, which does not divide the 2 ranks of a point"):
        runs_of("weak", load_config(run_yaml(parallel={"sequence_parallel_size": 4})), points)
    auto = load_config(run_yaml(parallel={"sequence_parallel_size": "auto", "memory_limit": 1}))
    with pytest.raises(ConfigError, match="'auto'"):
        runs_of("weak", auto, points)


def test_a_run_of_a_point_takes_few_steps_and_stays_in_the_points_folder(run, tmp_path):
    own = timed(run, tmp_path / "ranks_2", warm_up=3, timed_steps=10, threads=1)
    assert own.train.steps == 13 + COUNTED_STEPS == own.train.checkpoint_every == own.train.validate_every
    assert own.train.count_traffic == COUNTED_STEPS
    assert own.output.dir == str(tmp_path / "ranks_2" / "run")
    assert own.model == run.model and own.tokens == run.tokens and own.train.seed == run.train.seed


def test_twice_the_tokens_fit_in_half_the_precision(run):
    one, half = (
        lengths_of(run, (64, 64), 2.0**20, precision, can_measure=False) for precision in ("float32", "bfloat16")
    )
    assert half.num_tokens == one.num_tokens and half.expected(4) == 2 * one.expected(4)
    assert Case.from_json(json.loads(json.dumps(half.case))).dtype == torch.bfloat16


def test_lengths_are_those_of_the_runs_own_network(run_yaml):
    patches = [[1, 1, 16, 32], [1, 1, 8, 8]]
    own = load_config(
        run_yaml(
            model={"channels": 12, "layers": [2, 1], "maps": 1, "rotary": True},
            tokens={"set": "mul", "patches": patches, "rule": "threshold", "refine": 0.3, "criterion": "gradient"},
        )
    )
    case = Case.from_json(json.loads(json.dumps(lengths_of(own, (64, 64), None, "float32", can_measure=True).case)))
    config = case.make_config()
    for key in ("scheme", "network", "channels", "layers", "maps", "rotary"):
        assert getattr(config, key) == getattr(own.model, key)
    assert (config.num_heads, config.width, config.num_blocks) == SIZES[own.model.size]
    assert config.tokens == own.tokens.model_copy(update={"rule": "fraction", "refine": 0.25})
    assert longer(case, 2).grid == (128, 64) and case.coarse_cells == 16
    assert case.make_model()(case.make_batch()).loss.isfinite()


def test_a_study_is_read_as_it_was_written(tmp_path):
    lengths = Lengths({"grid": [64, 64], "patches": [16, 8]}, 64, 1000, None)
    study = Study(tmp_path, "sequence", "cpu", 3, 16, tuple(make_points([1, 2], 8)), lengths)
    study.write()
    assert load_study(tmp_path) == study
    with pytest.raises(StudyError, match="holds no study"):
        load_study(tmp_path / "elsewhere")
