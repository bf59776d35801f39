"""The run YAMLs of the paper hold its numbers, and what their headers say can be set."""

import re

import pytest

from matey.config import load_config
from tests.support.paths import ROOT

RUNS = ROOT / "launch" / "runs"
ADAPTIVE = ("mix", ((1, 1, 32, 32), (1, 1, 8, 8)), 0.2)


def uniform(size):
    return "uniform", ((1, 1, size, size),), 0.2


def load(name, overrides=()):
    return load_config(RUNS / f"{name}.yaml", overrides)


def variants(name):
    """The overrides that the header of a run names, those of a line together."""
    header = [line for line in (RUNS / f"{name}.yaml").read_text().splitlines() if line.startswith("#")]
    found = (re.findall(r"--set '?([\w.]+=[^ ')]*[^ ').])", line) for line in header)
    return [overrides for overrides in found if overrides]


def tokens_of(run):
    assert run.tokens.rule == "threshold"
    return run.tokens.set, run.tokens.patches, run.tokens.refine


def batch_on(num_ranks, run):
    return run.train.micro_batch * run.train.accumulation * num_ranks


@pytest.mark.parametrize("scheme", ["vit", "svit", "avit"])
def test_pretraining_is_the_papers_with_adaptive_tokens_and_uniform_ones(scheme):
    name = f"paper_pretrain_{scheme}_b"
    run = load(name)
    assert (run.model.size, run.model.scheme, run.model.drop_path) == ("B", scheme, 0.1)
    assert (run.data.history, run.data.lead_max, run.data.split) == (16, 1, (0.8, 0.1, 0.1))
    assert (run.train.schedule, run.train.warmup_steps, run.train.weight_decay) == ("cosine", 1000, 1e-3)
    assert (run.train.steps, run.train.validate_every) == (400 * 500, 400)
    assert batch_on(736, run) == 1472
    assert [tokens_of(each) for each in (run, *(load(name, more) for more in variants(name)))] == [
        ADAPTIVE,
        uniform(32),
    ]


@pytest.mark.parametrize(("name", "lead_max"), [("finetune_thermals", 50), ("finetune_mhd", 100)])
def test_fine_tuning_is_the_papers_for_a_part_and_for_all(name, lead_max):
    whole, spread = variants(name)
    prepost, everything = load(name, spread), load(name, whole)
    for run in (prepost, everything):
        assert (run.data.history, run.data.lead_max, run.train.schedule) == (10, lead_max, "constant")
    assert batch_on(8, prepost) == batch_on(64, everything) == 256
    assert (prepost.finetune.train, prepost.train.learning_rate, prepost.train.weight_decay) == ("prepost", 1e-4, 1e-3)
    assert (everything.train.learning_rate, everything.train.weight_decay) == (5e-5, 0)
