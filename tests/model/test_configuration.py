"""The network of a run, how it is found, and what it is called with."""

import json
import pickle
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
import torch

from matey import MateyConfig, MateyModel
from matey.checkpoints.run_files import CheckpointError
from matey.checkpoints.trained import load_model
from matey.config import load_config, parse_config
from matey.model.configuration import FIXED, STATED, model_config, with_network_of
from matey.model.nested import packed, tensors_in
from tests.support.models import make_batch, make_model
from tests.support.paths import ROOT
from tests.support.programs import start


def test_what_the_yaml_cannot_say_is_as_in_the_pretrained_model(run_yaml):
    unusual = {"mlp_ratio": 3.0, "num_wavelengths": 8, "longest_lead": 64.0}
    unusual["scales"] = {"water_height": [[0.0] * 3, [1.0] * 3]}
    unusual["spacings"] = {"shallow_water": [[0.0] * 4, [1.0] * 4]}
    assert {*unusual} == set(FIXED)
    pretrained = MateyConfig.from_size("micro", fields=("water_height",), **unusual)
    run = with_network_of(load_config(run_yaml(model={"size": "micro", "fields": ["water_height"]})), pretrained)
    config = model_config(run, pretrained)
    assert {name: getattr(config, name) for name in unusual} == unusual
    assert (config.width, config.history, config.tokens.set) == (pretrained.width, 2, "mix")


@pytest.mark.parametrize("network", ["matey", "paper"])
def test_a_setting_has_the_same_default_in_the_yaml_and_from_python(network):
    tree = {"data": {"sets": [{"path": "a.h5"}]}, "train": {"steps": 3}, "output": {"dir": "runs/a"}}
    run, config = (
        tree | {"model": {"fields": ["density"], "network": network}},
        MateyConfig(["density"], network=network),
    )
    assert model_config(parse_config(run, "a test")).to_dict() == config.to_dict()
    assert (config.predict, config.statistics) == (("rate", True) if network == "matey" else ("field", False))


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


@pytest.mark.parametrize("kind", [MateyConfig, MateyModel])
@pytest.mark.parametrize("name", ["nope", "runs/never_made/model", "models/matey-micr", "../run", ""])
def test_what_is_no_folder_and_no_name_on_the_hub_is_refused_at_once(kind, name, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("a server was asked"))
    with pytest.raises(
        FileNotFoundError, match="There is no folder .* here, and it is no owner/name of a model on the"
    ):
        kind.from_pretrained(name)


def test_a_name_on_the_hub_is_left_to_hugging_face():
    with pytest.raises(OSError, match="^(?!There is no folder)"):
        MateyModel.from_pretrained("ornl/matey", local_files_only=True)


def test_the_model_that_comes_with_the_program_is_known_by_name_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("matey-micro", "models/matey-micro"):
        assert MateyConfig.from_pretrained(name).model_type == "matey"
    with pytest.raises(FileNotFoundError, match="There is no folder zero1 here"):
        MateyConfig.from_pretrained("zero1")


# A new interpreter has imported neither; one that is forked, transformers.
@pytest.mark.parametrize(
    ("order", "anew"),
    [
        pytest.param("from matey import MateyModel; from transformers import {}", True, marks=pytest.mark.slow),
        ("from transformers import {}; from matey import MateyModel", False),
    ],
    ids=["matey_first", "transformers_first"],
)
def test_transformers_load_a_model_by_its_own_name(tmp_path, order, anew):
    make_model(dtype=torch.float32).save_pretrained(tmp_path / "model")
    code = (
        f"{order.format('AutoConfig, AutoModel')}; print(type(AutoModel.from_pretrained({str(tmp_path / 'model')!r})))"
    )
    code += f"; print(type(AutoConfig.from_pretrained({str(tmp_path / 'model')!r})))"
    (tmp_path / "load.py").write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}")
    result = start([sys.executable, tmp_path / "load.py"], anew=anew)
    assert "MateyModel" in result.stdout and "MateyConfig" in result.stdout, result.stderr


def test_importing_matey_does_not_import_transformers():
    code = "import matey, sys; print('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_a_model_says_what_it_takes():
    model, batch = make_model(), make_batch()
    for given, words in (
        ([], "got list of none; make one by matey.FieldBatch"),
        ([batch.history], "got list of Tensor"),
    ):
        with pytest.raises(ValueError, match=words):
            model(given)
    with pytest.raises(ValueError, match="predict takes one FieldBatch, got list; call the model itself"):
        model.predict([batch])


def test_a_gradient_of_the_history_is_refused_since_it_would_be_missing():
    model, batch = make_model(), make_batch()
    asked = batch.with_tensors(history=batch.history.clone().requires_grad_())
    with pytest.raises(ValueError, match=r"history requires a gradient, which would be missing.*history.detach\(\)"):
        model(asked)
    assert torch.equal(model.predict(asked), model.predict(batch))


def test_a_batch_that_is_refused_leaves_a_model_in_training():
    model, batch = make_model().train(), make_batch()
    with pytest.raises(ValueError, match="vocabulary"):
        model.predict(replace(batch, fields=("a", "b")[: len(batch.fields)]))
    assert model.training and model.predict(batch).isfinite().all() and model.training


@dataclass(frozen=True)
class Inner:
    values: torch.Tensor
    box: tuple[slice, ...]


def nouns():
    inner = Inner(torch.arange(7, dtype=torch.int32), (slice(1, 2),))
    return [(inner, torch.tensor([True, False, True])), {"one": torch.tensor(1.5)}, (None, "x"), torch.zeros(0, 3)]


def test_what_is_packed_travels_as_one_buffer_and_comes_out_as_it_was():
    there = pickle.loads(pickle.dumps(packed(nouns())))
    assert there.buffer.dtype == torch.uint8 and tensors_in(there.outline) == []
    came = there.unpacked()
    for before, after in zip(tensors_in(nouns()), tensors_in(came), strict=True):
        assert before.dtype == after.dtype and torch.equal(before, after)
    start = there.buffer.untyped_storage().data_ptr()
    assert {tensor.untyped_storage().data_ptr() for tensor in tensors_in(came)} == {start}
    assert came[0][0].box == (slice(1, 2),)
