"""The network of a run: what its YAML does not say comes from the pretrained model."""

import json

import pytest

from matey import MateyConfig, MateyModel
from matey.checkpoints.run_files import CheckpointError
from matey.checkpoints.trained import load_model
from matey.config import load_config, parse_config
from matey.model.configuration import FIXED, STATED, model_config, place_of, with_network_of


def test_what_the_yaml_cannot_say_is_as_in_the_pretrained_model(run_yaml):
    unusual = {"mlp_ratio": 3.0, "num_wavelengths": 8, "longest_lead": 64.0}
    unusual["scales"] = {"water_height": [[0.0] * 3, [1.0] * 3]}
    assert {*unusual} == set(FIXED)
    pretrained = MateyConfig.from_size("micro", fields=("water_height",), **unusual)
    run = with_network_of(load_config(run_yaml(model={"size": "micro", "fields": ["water_height"]})), pretrained)
    config = model_config(run, pretrained)
    assert {name: getattr(config, name) for name in unusual} == unusual
    assert (config.width, config.history, config.tokens.set) == (pretrained.width, 2, "mix")


def test_a_setting_has_the_same_default_in_the_yaml_and_from_python():
    tree = {"data": {"sets": [{"path": "a.h5"}]}, "train": {"steps": 3}, "output": {"dir": "runs/a"}}
    run = parse_config(tree | {"model": {"fields": ["density"]}}, "a test")
    assert model_config(run).to_dict() == MateyConfig(["density"]).to_dict()


@pytest.mark.parametrize("key", STATED)
def test_a_config_that_does_not_state_what_network_it_is_is_refused(tmp_path, key):
    MateyConfig(["density"]).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config[key]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"config.json does not state {key}, as every model of this version does"):
        MateyConfig.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=f"cannot be loaded: config.json does not state {key}"):
        load_model(tmp_path)


def test_a_setting_of_tokens_given_beside_them_is_answered_with_its_place():
    with pytest.raises(ValueError, match="refine belongs to tokens, as in the run YAML: tokens={'refine': 0.1}"):
        MateyConfig(["density"], refine=0.1)


def test_an_unknown_key_of_tokens_names_the_nearest_in_python_as_well():
    with pytest.raises(ValueError, match="tokens: unknown key 'refin'. Did you mean 'refine'"):
        MateyConfig(["density"], tokens={"refin": 0.1})


def test_the_paper_s_network_predicts_the_field_and_is_told_no_scales_unless_asked():
    paper = MateyConfig(["density"], network="paper")
    assert (paper.predict, paper.statistics) == ("field", False)
    assert MateyConfig(["density"], network="paper", predict="rate").predict == "rate"
    tree = {"data": {"sets": [{"path": "a.h5"}]}, "train": {"steps": 3}, "output": {"dir": "runs/a"}}
    run = parse_config(tree | {"model": {"fields": ["density"], "network": "paper"}}, "a test")
    assert model_config(run).to_dict() == paper.to_dict()


@pytest.mark.parametrize("kind", [MateyConfig, MateyModel])
@pytest.mark.parametrize("name", ["nope", "runs/never_made/model", "models/matey-micr", "./run", "../run", "a b/c", ""])
def test_what_is_no_folder_and_no_name_on_the_hub_is_refused_at_once(kind, name, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("a server was asked"))
    with pytest.raises(
        FileNotFoundError, match="There is no folder .* here, and it is no owner/name of a model on the"
    ):
        kind.from_pretrained(name)


def test_a_name_on_the_hub_and_a_folder_are_left_to_hugging_face(tmp_path):
    assert place_of("ornl/matey-1.5") == "ornl/matey-1.5"
    assert place_of(tmp_path) == str(tmp_path)
    with pytest.raises(OSError, match="^(?!There is no folder)"):
        MateyModel.from_pretrained("ornl/matey", local_files_only=True)


def test_the_model_that_comes_with_the_program_is_known_by_name_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("matey-micro", "models/matey-micro"):
        assert MateyConfig.from_pretrained(name).model_type == "matey"
    with pytest.raises(FileNotFoundError, match="There is no folder zero1 here"):
        MateyConfig.from_pretrained("zero1")
