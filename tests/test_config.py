"""Mistakes in the run YAML, the DeepSpeed JSON and flags; the run YAMLs of the paper hold its numbers."""

import argparse
import re

import pytest
import yaml

from matey.config import ConfigError, dump_config, flags, load_config, load_deepspeed_config
from tests.support.paths import ROOT

MINIMAL = {"data": {"sets": [{"path": "a.h5"}]}, "train": {"steps": 3}, "output": {"dir": "runs/a"}}


@pytest.fixture
def path(tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(MINIMAL))
    return tmp_path / "run.yaml"


def test_a_resolved_configuration_reads_back_equal(path, tmp_path):
    config = load_config(path, ["train.steps=200", "tokens.patches=[[1, 1, 16, 16], [1, 1, 8, 8]]"])
    assert config.train.steps == 200 and config.tokens.patches[1] == (1, 1, 8, 8)
    (tmp_path / "resolved.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "resolved.yaml") == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.step=3", "unknown key 'train.step'. Did you mean 'train.steps'?"),
        ("data.sets=[{path: a, wieght: 2}]", "unknown key 'data.sets.0.wieght'. Did you mean 'data.sets.0.weight'?"),
        ("train.history=4", "unknown key 'train.history'. Did you mean 'data.history'?"),
        ("train.bf16=true", "unknown key 'train.bf16'. That is DeepSpeed's: set it in the JSON"),
        (
            "tokens.patches=[[1, 1, 16, 16], [1, 1, 6, 8]]",
            r"has \[1, 1, 6, 8\] after \[1, 1, 16, 16\]; each size .* divide",
        ),
        ("train.steps=0", r"train.steps: .* greater than or equal to 1 \(got 0\)"),
        ("tokens.set=uniform", "one patch size"),
        ("data.sets=x", r"with --set: data.sets: expected a list, such as \[a, b\] \(got 'x'\)"),
        ("train.steps", "--set takes key=value"),
        (
            "data.split_by=time",
            r"'data.sets.split_by'\? It belongs to a data set: data.sets=\[\{path: ..., split_by: ...\}\]",
        ),
        ("data.sets.split_by=time", "'sets' is no section; a list is set as a whole, such as --set 'data.sets="),
        ("tokens.patches=[[1, 16, 16]]", r"tokens.patches.0: expected 4 numbers \[t, z, y, x\] \(got \[1, 16, 16\]\)"),
    ],
)
def test_a_wrong_override_says_what_is_wrong(path, override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(path, [override])


def test_paths_may_name_variables_of_the_environment(path, monkeypatch):
    monkeypatch.setenv("SCRATCH", "/lustre/me")
    monkeypatch.setenv("HOME", "/home/me")
    assert load_config(path, ["output.dir=~/a"]).output.dir == "/home/me/a"
    config = load_config(path, ["output.dir=$SCRATCH/a", "data.sets=[{path: '${SCRATCH}_2/*.h5'}]"])
    assert config.output.dir == "/lustre/me/a" and config.data.sets[0].path == "/lustre/me_2/*.h5"
    monkeypatch.setenv("SCRATCH", "")
    with pytest.raises(ConfigError, match=r"output.dir: '\$SCRATCH/a' names the variable SCRATCH, which is not set"):
        load_config(path, ["output.dir=$SCRATCH/a"])


def test_a_missing_file_and_a_missing_section_are_named(path, tmp_path):
    with pytest.raises(ConfigError, match="Cannot read .*no.yaml"):
        load_config(tmp_path / "no.yaml")
    path.write_text(yaml.safe_dump({key: value for key, value in MINIMAL.items() if key != "train"}))
    with pytest.raises(ConfigError, match="'train' is required"):
        load_config(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("data: {path: Wärme}".encode("latin-1"), "is not text in UTF-8 .byte 14.; save it in that encoding"),
        (b"train: " + b"[" * 100_000, "exceeded maximum nesting depth|is not YAML"),
        (b"train: {steps: 2020-13-45}", "is not YAML: month must be in 1..12"),
        (b"1: x", "Keys should be strings"),
        (b"x" * 1000 + b": 1", "unknown key 'x{80}'"),
    ],
)
def test_what_is_no_plain_yaml_is_one_short_sentence(tmp_path, content, message):
    (tmp_path / "run.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(tmp_path / "run.yaml")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.steps", "1" + "0" * 23, "less than or equal"),
        ("train.seed", "1" + "0" * 23, "less than 9223372036854775808"),
        ("data.split", "[2, -1, 0]", "data.split.1: .* greater than or equal to 0"),
        ("output.dir", '"a\\ud800"', "valid string|is not YAML"),
    ],
)
def test_values_beyond_all_sense_are_refused_by_the_schema(path, key, value, message):
    with pytest.raises(ConfigError, match=message):
        load_config(path, [f"{key}={value}"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"train_batch_size": 8}', "'train_batch_size' is set in the run YAML .train.micro_batch"),
        ('{"dump_state": {}}', "dump_state: expected a value"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_a_wrong_deepspeed_json_says_what_is_wrong(tmp_path, text, message):
    (tmp_path / "ds.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_deepspeed_config(tmp_path / "ds.json")


@pytest.mark.parametrize("text", ["0", "1025", "1.5", "", "9" * 5000, "1e2"])
def test_a_number_of_threads_that_would_crash_the_process_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number from 1 to 1,024, got '"):
        flags.threads(text)
    assert flags.threads("1024") == 1024


@pytest.mark.parametrize("text", ["nan", "-0.1", "1e400", "half"])
def test_a_share_is_a_finite_number_from_zero_to_one(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a number from 0 to 1, got"):
        flags.number(0, 1)(text)
    assert flags.number(0, 1)("0.25") == 0.25


@pytest.mark.parametrize("text", ["0,8", "8", "8,,8"])
def test_a_grid_has_two_or_three_positive_numbers(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected "):
        flags.wholes(1, 65_536, (2, 3))(text)
    assert flags.wholes(1, 65_536, (2, 3))("8,16") == (8, 16)


def test_a_name_of_bytes_that_are_no_text_is_refused():
    with pytest.raises(argparse.ArgumentTypeError, match=r"expected a name in UTF-8, got 'a\\udcff'"):
        flags.path("a\udcff")
    assert flags.path("Wärme").name == "Wärme"


RUNS = ROOT / "launch" / "runs"


@pytest.mark.parametrize("path", [*RUNS.glob("*.yaml"), *ROOT.glob("ds_configs/*.json")], ids=lambda path: path.stem)
def test_the_configurations_that_come_with_the_package_are_taken(path):
    load_config(path) if path.suffix == ".yaml" else load_deepspeed_config(path)


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
