import json
import shutil

import pytest
import torch
import yaml

from matey import MateyModel
from matey.checkpoints.trained import CheckpointError, load_trained, read_log
from matey.model.configuration import SAVED

RUN = {
    "data": {"sets": [{"path": "data/swe"}], "history": 3},
    "train": {"steps": 10},
    "output": {"dir": "runs/example"},
}

DAMAGED_LINES = [
    b"[1, 2]",
    b'{"step": 1.5}',
    b'{"step": 2, "lo',
    '{"name": "W\xe4rme"}'.encode("latin-1"),
    b"[" * 100_000,
]


@pytest.fixture(scope="module")
def example(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "example"
    model.save_pretrained(folder / "model")
    (folder / "config.yaml").write_text(yaml.safe_dump(RUN))
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    return folder


@pytest.fixture
def run_folder(example, tmp_path):
    return shutil.copytree(example, tmp_path / "example")


def test_a_run_brings_its_weights_its_configuration_and_its_log(run_folder, model):
    trained = load_trained(run_folder)
    assert (trained.name, trained.num_frames, trained.log) == ("example", 3, [{"step": 1, "loss": 0.5}])
    for name, weight in model.state_dict().items():
        assert torch.equal(trained.model.state_dict()[name], weight)


def test_a_model_folder_knows_its_history_and_no_run(run_folder):
    trained = load_trained(run_folder / "model")
    assert (trained.run, trained.num_frames, trained.log) == (None, 2, [])


def test_a_run_without_weights_says_when_there_are_some(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(RUN))
    with pytest.raises(CheckpointError, match="has no model/, which training writes at its validations"):
        load_trained(tmp_path)


def test_truncated_weights_are_refused(run_folder):
    weights = run_folder / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="model cannot be loaded: .*; copy the model again"):
        load_trained(run_folder)


def test_weights_of_another_model_are_refused_and_not_filled_up_at_random(run_folder):
    edit_model_config(run_folder, num_blocks=3)
    with pytest.raises(CheckpointError, match="are missing from .*/model or have another shape"):
        load_trained(run_folder)


def test_the_log_of_a_resumed_run_has_each_step_once_and_half_lines_are_left_out(tmp_path):
    numbers = ((1, "loss", 0.9), (2, "loss", 0.8), (2, "valid_vrmse", 0.7), (3, "loss", 0.6), (2, "loss", 0.5))
    lines = [{"step": step, key: value} for step, key, value in numbers]
    text = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '\n{"step": 3, "lo\n')
    assert read_log(tmp_path / "metrics.jsonl") == [lines[0], lines[4], lines[2], lines[3]]


@pytest.mark.parametrize("damage", DAMAGED_LINES, ids=range(len(DAMAGED_LINES)))
def test_a_damaged_line_of_the_log_is_skipped_and_counted_once(run_folder, damage):
    (run_folder / "metrics.jsonl").write_bytes(b'{"step": 1, "loss": 0.5}\n' + damage + b'\n{"step": 2, "loss": 0.4}\n')
    trained = load_trained(run_folder)
    assert [line["step"] for line in trained.log] == [1, 2]
    assert trained.note == f"{run_folder / 'metrics.jsonl'}: 1 corrupt lines are skipped."


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokens": {"patches": [[1, 1, 10**9, 8]]}}, "patches.0.2: .* less than or equal"),
        ({"channels": "many"}, "model cannot be loaded: model: 'channels'|channels: "),
        ({"model_type": ["matey"]}, "a model of type .*, not 'matey'"),
    ],
)
def test_a_model_configuration_is_validated_as_a_run_is(change, words, run_folder):
    edit_model_config(run_folder, **change)
    with pytest.raises(CheckpointError, match=words):
        load_trained(run_folder)


def test_a_model_whose_weights_are_not_finite_is_refused(run_folder, model):
    weights = model.state_dict() | {"giving.1.weight": torch.full_like(model.giving[1].weight, torch.nan)}
    model.save_pretrained(run_folder / "model", state_dict=weights)
    with pytest.raises(CheckpointError, match="1 of the weights in .* hold NaN or infinity, such as giving.1.weight"):
        load_trained(run_folder)


def test_a_model_that_was_trained_with_a_backend_of_gpus_is_loaded_on_a_cpu(run_folder):
    edit_model_config(run_folder, attention="flash_attn")
    assert load_trained(run_folder).model.sequence_group.backend == "auto"


@pytest.mark.parametrize("load", [load_trained, MateyModel.from_pretrained])
def test_a_key_or_an_adapter_that_no_saved_model_has_is_refused(load, run_folder):
    adapter = run_folder / "model" / "adapter_config.json"
    adapter.write_text('{"base_model_name_or_path": "owner/model"}')
    with pytest.raises(ValueError, match="holds adapter_config.json, which no model of MATEY has"):
        load(run_folder / "model")
    adapter.unlink()
    edit_model_config(run_folder, auto_map={"AutoModel": "x--y.z"})
    with pytest.raises(ValueError, match="config.json has 'auto_map', which no model of MATEY has"):
        load(run_folder / "model")


def test_a_saved_model_states_its_own_keys_and_leaves_attention_to_matey(run_folder):
    model = load_trained(run_folder).model
    assert model.config.to_dict().keys() <= SAVED and model.config._attn_implementation == "eager"


def edit_model_config(run_folder, **change):
    path = run_folder / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
