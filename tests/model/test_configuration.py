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
from matey.model.configuration import FIXED, STATED, model_config, place_of, with_network_of
from matey.model.nested import packed, tensors_in, with_tensors
from matey.model.prepare import micro_batch
from tests.support.models import make_batch, make_model
from tests.support.paths import ROOT
from tests.support.programs import start


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


def test_a_batch_and_a_list_of_batches_are_a_micro_batch():
    batch = make_batch()
    assert micro_batch(batch) == micro_batch([batch]) == micro_batch((batch,)) == [batch]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "got list of none; make one by matey.FieldBatch"),
        (torch.zeros(1, 2, 1, 1, 8, 8), "takes a FieldBatch .* got Tensor; make one"),
        ([torch.zeros(2)], "got list of Tensor"),
        ({"history": 1}, "got dict"),
    ],
)
def test_a_model_says_what_it_takes(given, words):
    with pytest.raises(ValueError, match=words):
        make_model()(given)


def test_predict_takes_a_single_batch_and_says_so():
    model, batch = make_model(), make_batch()
    with pytest.raises(ValueError, match="predict takes one FieldBatch, got list; call the model itself"):
        model.predict([batch])
    with pytest.raises(ValueError, match="got Tensor"):
        model.predict(batch.history)
    assert model.predict(batch).shape == batch.last.shape


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

    def __post_init__(self):
        assert self.values.device.type == "cpu", "made once"


def nouns():
    inner = Inner(torch.arange(7, dtype=torch.int32), (slice(1, 2),))
    return [(inner, torch.tensor([True, False, True])), {"one": torch.tensor(1.5)}, (None, "x"), torch.zeros(0, 3)]


def test_every_tensor_is_found_in_order_and_replaced():
    shapes = [tuple(tensor.shape) for tensor in tensors_in(nouns())]
    assert shapes == [(7,), (3,), (), (0, 3)]
    ((inner, mask), one, rest, none) = with_tensors(nouns(), lambda tensor: tensor.to("meta"))
    assert {each.device.type for each in (inner.values, mask, one["one"], none)} == {"meta"}
    assert inner.box == (slice(1, 2),) and rest == (None, "x")


def test_what_is_packed_travels_as_one_buffer_and_comes_out_as_it_was():
    there = pickle.loads(pickle.dumps(packed(nouns())))
    assert there.buffer.dtype == torch.uint8 and tensors_in(there.outline) == []
    came = there.unpacked()
    for before, after in zip(tensors_in(nouns()), tensors_in(came), strict=True):
        assert before.dtype == after.dtype and torch.equal(before, after)
    start = there.buffer.untyped_storage().data_ptr()
    assert {tensor.untyped_storage().data_ptr() for tensor in tensors_in(came)} == {start}
    assert came[0][0].box == (slice(1, 2),)
