"""Mistakes in the run YAML and in the DeepSpeed JSON."""

import json

import pytest
import yaml

from matey.config import ConfigError, dump_config, load_config, load_deepspeed_config, load_resolved, parse_config

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
        ("train.step=3", "unknown key 'train.step'. Did you mean 'steps'?"),
        ("trian.steps=3", "unknown key 'trian'. Did you mean 'train'?"),
        ("data.sets=[{path: a, wieght: 2}]", "unknown key 'data.sets.0.wieght'. Did you mean 'weight'?"),
        ("train.steps=0", r"train.steps: .* greater than or equal to 1 \(got 0\)"),
        ("train.steps=many", "train.steps: .* integer"),
        ("tokens.set=uniform", "one patch size"),
        ("data.split=[1, 1, 0]", "must add up to 1"),
        ("train.steps", "--set takes key=value"),
        ("train.steps.x=2", "'steps' is a value, not a section"),
    ],
)
def test_a_wrong_override_says_what_is_wrong(path, override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(path, [override])


def test_a_missing_file_and_a_missing_section_are_named(path, tmp_path):
    with pytest.raises(ConfigError, match="Cannot read .*no.yaml"):
        load_config(tmp_path / "no.yaml")
    path.write_text(yaml.safe_dump({key: value for key, value in MINIMAL.items() if key != "train"}))
    with pytest.raises(ConfigError, match="'train' is required"):
        load_config(path)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"train_batch_size": 8}, "'train_batch_size' is set in the run YAML .train.micro_batch"),
        ({"optimizer": {"type": "Adam"}}, "'optimizer' is set in the run YAML .train.learning_rate"),
        ({"zero_optimisation": {"stage": 1}}, "no key 'zero_optimisation'. Did you mean 'zero_optimization'?"),
        ([], "must hold a JSON object"),
    ],
)
def test_a_wrong_deepspeed_json_says_what_is_wrong(tmp_path, tree, message):
    (tmp_path / "ds.json").write_text(json.dumps(tree))
    with pytest.raises(ConfigError, match=message):
        load_deepspeed_config(tmp_path / "ds.json")


def test_what_an_older_run_did_not_name_is_as_it_was_then(tmp_path):
    run = parse_config(MINIMAL, "a test")
    tree = yaml.safe_load(dump_config(run))
    assert (run.model.local, run.model.statistics) == (16, True)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    assert load_resolved(path) == run
    del tree["model"]["local"], tree["model"]["statistics"]
    path.write_text(yaml.safe_dump(tree))
    assert (load_resolved(path).model.local, load_resolved(path).model.statistics) == (0, False)


def test_unrolling_further_than_lead_times_reach_is_refused(path):
    with pytest.raises(ConfigError, match=r"train.unroll is 2, .* data.lead_max is 2"):
        load_config(path, ["train.unroll=2", "data.lead_max=2"])
    assert load_config(path, ["train.unroll=1", "data.lead_max=2"]).train.unroll == 1
