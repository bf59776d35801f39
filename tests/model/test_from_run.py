"""The network of a run: what its YAML does not say comes from the pretrained model."""

import json

import pytest

from matey import MateyConfig
from matey.config import load_config, parse_config
from matey.model.from_run import FIXED, model_config, with_network_of


def test_what_the_yaml_cannot_say_is_as_in_the_pretrained_model(run_yaml):
    unusual = {"mlp_ratio": 3.0, "halo": 1, "overlap": 1, "num_wavelengths": 8, "longest_lead": 64.0}
    assert {"normalisation", *unusual} == set(FIXED)
    pretrained = MateyConfig.from_size("micro", fields=("water_height",), **unusual)
    run = with_network_of(load_config(run_yaml(model={"size": "micro", "fields": ["water_height"]})), pretrained)
    config = model_config(run, pretrained)
    assert {name: getattr(config, name) for name in unusual} == unusual
    assert (config.width, config.history, config.token_set) == (pretrained.width, 2, "mix")


def test_a_setting_has_the_same_default_in_the_yaml_and_from_python():
    tree = {"data": {"sets": [{"path": "a.h5"}]}, "train": {"steps": 3}, "output": {"dir": "runs/a"}}
    run = parse_config(tree | {"model": {"fields": ["density"]}}, "a test")
    assert model_config(run).to_dict() == MateyConfig(["density"]).to_dict()


def test_a_model_saved_before_there_was_a_key_is_as_it_was_then(tmp_path):
    MateyConfig(["density"], patches=[[1, 1, 8, 8], [1, 1, 4, 4]]).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for key in ("local", "local_scales", "statistics", "predict"):
        del config[key]
    (tmp_path / "config.json").write_text(json.dumps(config))
    read = MateyConfig.from_pretrained(tmp_path)
    assert (read.local, read.local_scales, read.statistics, read.predict) == (0, [1], False, "change")


def test_the_name_that_the_yaml_has_for_a_setting_is_answered_with_the_one_here():
    with pytest.raises(ValueError, match="What the run YAML calls tokens.refine is refine_amount here"):
        MateyConfig(["density"], refine=0.1)
