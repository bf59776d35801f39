"""What a fine-tuning run is made of: network, vocabulary, trained parts, and what is refused."""

import pytest
import torch

from matey import MateyConfig, MateyModel
from matey.checkpoints.trained import load_trained
from matey.config import ConfigError, load_config
from matey.mistakes import Mistake
from matey.model.parts import add_adapters, plain_weights
from matey.train.finetune import finetune
from tests.support.laws import law
from tests.support.models import make_batch, make_model
from tests.support.small_files import write_waves

OLD = ("inhibitor", "water_height")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """The folder of a model that knows one of the two fields of the data."""
    torch.manual_seed(0)
    config = MateyConfig.from_size("micro", fields=OLD, tokens={"patches": ((1, 1, 8, 8), (1, 1, 4, 4))}, history=3)
    folder = tmp_path_factory.mktemp("pretrained")
    MateyModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_waves(folder, "diffusion_reaction", num_trajectories=4)
    return folder


@pytest.fixture
def described(tmp_path, pretrained, data):
    """Describe a run with overrides; returns its lines."""
    (tmp_path / "run.yaml").write_text(
        f"data: {{sets: [{{path: {data}}}]}}\ntrain: {{steps: 2}}\noutput: {{dir: {tmp_path / 'run'}}}\n"
    )

    def describe(*overrides):
        lines = []
        run = load_config(tmp_path / "run.yaml", [f"finetune.pretrained={pretrained}", *overrides])
        finetune(run, {}, lines.append, only_describe=True)
        assert not (tmp_path / "run").exists()
        return "\n".join(lines).splitlines()

    return describe


def row(lines, part):
    (line,) = (line for line in lines if line.split()[:1] == [part])
    return [int(number.replace(",", "")) for number in line.split()[1:]]


def test_the_pretrained_model_gives_network_tokens_and_history(described):
    lines = described()
    assert any(line.startswith("micro vit") and "mix patches [[1, 1, 8, 8], [1, 1, 4, 4]]" in line for line in lines)
    assert "Known fields keep their rows: inhibitor, water_height." in lines
    assert "New fields: activator (mean)." in lines
    number, reused, new, trained = row(lines, "embedding_fields")
    assert (reused, new, trained) == (number * 2 // 3, number // 3, number)


def test_what_the_run_states_is_taken_and_said(described):
    rows = 'finetune.new_rows_of={activator: "copy:inhibitor"}'
    lines = described("data.history=2", "tokens.patches=[[1, 1, 4, 4]]", rows)
    assert "The history has 2 frames instead of 3; no weight depends on it." in lines
    assert "Levels of the pretrained model without a place: [1, 1, 8, 8]." in lines
    assert "New fields: activator (copy:inhibitor)." in lines


@law(
    ("mode", "frozen"),
    [("all", ()), ("prepost", ("blocks",)), ("lora", ("blocks",)), ("head", ("blocks", "embedding", "position"))],
    quick=[("lora", ("blocks",)), ("head", ("blocks", "embedding", "position"))],
)
def test_the_table_shows_what_is_trained(described, mode, frozen):
    lines = described(f"finetune.train={mode}")
    for part in ("embedding", "position", "lead_time", "blocks", "decoder", "cells", "cells_fields"):
        number, _, _, trained = row(lines, part)
        assert trained == (0 if part in frozen or (mode == "head" and part == "lead_time") else number)
    if mode == "lora":
        number, reused, _, trained = row(lines, "adapters")
        assert (number, reused) == (trained, 0) and number == 2 * 8 * (96 * 4 + 96 * 2 + 96 * 5 + 96 * 5)


def test_random_weights_want_the_network_stated(described):
    with pytest.raises(ConfigError, match="has to state model.size; the config.yaml of a run from a pretrained"):
        described("finetune.pretrained=none")
    stated = ["model={size: micro, scheme: vit, fields: [inhibitor, water_height, activator]}"]
    stated += ["tokens={set: mix, patches: [[1,1,8,8],[1,1,4,4]]}", "data.history=3"]
    lines = described("finetune.pretrained=none", "finetune.train=prepost", *stated)
    assert "Initial weights are random." in lines
    assert row(lines, "blocks") == [224832, 0, 224832, 0]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["finetune.pretrained=nowhere"], "There is no folder nowhere"),
        (["finetune.pretrained=null"], "Name the run or model to start from: --pretrained RUN_OR_MODEL"),
        (["model.size=Ti"], "has width 96, the run asks for 192"),
        (["finetune.new_rows_of={pressure: zero}"], "names 'pressure', which is no new field; new are activator"),
        (["finetune.new_rows=copy:inhibiter"], "Did you mean 'inhibitor'"),
        (["train.groups={blocks: {learning_rat: 1}}"], "Did you mean 'train.groups.blocks.learning_rate'"),
    ],
)
def test_what_cannot_be_fine_tuned_is_refused_in_a_sentence(described, overrides, message):
    with pytest.raises(Mistake, match=message):
        described(*overrides)


def test_merged_adapters_predict_as_adapters_do(tmp_path):
    model = make_model(dtype=torch.float32)
    before = model.predict(make_batch())
    add_adapters(model, rank=4, alpha=12.0)
    assert torch.equal(model.predict(make_batch()), before)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    expected = model.predict(make_batch())
    assert (expected - before).abs().max() > 1e-3
    model.save_pretrained(tmp_path / "merged", state_dict=plain_weights(model, model.state_dict()))
    merged = load_trained(tmp_path / "merged").model
    assert torch.allclose(merged.predict(make_batch()), expected, atol=1e-5)


def test_merged_adapters_keep_what_bfloat16_cannot_tell_apart():
    model = make_model(dtype=torch.float32)
    add_adapters(model, rank=4, alpha=4.0)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.bfloat16().float()
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=1e-4)
    expected = plain_weights(model, model.state_dict())
    # The engine trains in bfloat16, and keeps weights that are trained in float32 as well.
    held = {name: value if "lora" in name else value.bfloat16() for name, value in model.state_dict().items()}
    merged = plain_weights(model, held)
    assert all(torch.equal(merged[name].float(), expected[name]) for name in expected)
    assert any(not torch.equal(value.bfloat16().float(), value) for value in expected.values())
