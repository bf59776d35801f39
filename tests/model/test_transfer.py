"""A trained model's weights in a model with other fields, patches and levels."""

import pytest
import torch

from matey import MateyConfig, MateyModel
from matey.model.parts import FIELD_ROWS, LOCAL_OUTPUTS, part_of
from matey.model.transfer import transfer
from tests.support.models import VOCABULARY, make_batch, make_model

PATCHES = ((1, 1, 16, 16), (1, 1, 4, 4))
NEW = ("density", "magnetic_x")


def moved(source, new_rows="zero", *, start="pretrained", **changes):
    """A target that differs from the source by `changes`, with what fits copied."""
    settings = {"fields": (*source.config.fields, *NEW)}
    same = ("local", "local_scales", "local_cascade", "local_layers", "rotary", "statistics", "predict")
    settings |= {name: getattr(source.config, name) for name in same} | changes
    patches = settings.pop("patches", source.config.patches)
    tokens = {"set": "mix" if len(patches) > 1 else "uniform", "patches": patches, "refine": 0.3}
    torch.manual_seed(1)
    config = MateyConfig(**{"tokens": tokens, "num_heads": 3, "width": 24, "num_blocks": 2, "history": 2, **settings})
    target = MateyModel(config).double().eval()
    new = {name: new_rows for name in target.config.fields if name not in source.config.fields}
    return target, transfer(source, target, new, local=start)


@pytest.fixture(scope="module")
def source():
    return make_model(PATCHES)


def test_known_fields_are_predicted_to_the_last_bit_as_before(source):
    target, result = moved(source)
    batch = make_batch(dtype=torch.float64)
    assert torch.equal(target.predict(batch), source.predict(batch))
    number = sum(parameter.numel() for parameter in source.parameters())
    assert sum(result.reused.values()) == number
    assert result.sentences == (
        "Known fields keep their rows: water_height, activator, inhibitor.",
        "New fields: density (zero), magnetic_x (zero).",
    )


def test_the_order_of_the_vocabulary_does_not_matter(source):
    target, _ = moved(source, fields=("magnetic_x", "inhibitor", "water_height", "activator"))
    batch = make_batch("diffusion_reaction", VOCABULARY[1:], dtype=torch.float64)
    assert torch.equal(target.predict(batch), source.predict(batch))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("zero", torch.zeros_like), ("mean", lambda rows: rows.mean(0).expand_as(rows)), ("copy:activator", None)],
)
def test_new_rows_start_as_asked_for(source, rule, expected):
    target, _ = moved(source, rule)
    new, checked = dict(target.named_parameters()), set()
    for name, rows in source.named_parameters():
        if part_of(name).endswith("_fields"):
            wanted = rows[1] if expected is None else expected(rows)[0]
            assert all(torch.equal(new[name][row], wanted) for row in (3, 4))
            checked.add((name.split(".")[0], name.split(".")[-1]))
    by_module = {
        "embeddings": ["field_weight"],
        "conditions": ["field_weight"],
        "decoders": ["field_weight", "window_weight", "field_bias"],
        "local": ["field_weight", "field_stencils", "field_linear", "field_out", "field_predicted"],
    }
    assert checked == {(module, name) for module, names in by_module.items() for name in names}


def test_a_copied_field_is_predicted_as_the_one_it_was_copied_from(source):
    target, _ = moved(source, "copy:water_height")
    batch = make_batch(dtype=torch.float64)
    same = make_batch("gas", ("density",), dtype=torch.float64)
    assert torch.equal(target.predict(same), source.predict(batch))


def test_a_new_level_takes_the_first_stages_of_the_nearest_and_predicts_persistence():
    source = make_model(PATCHES, local=0)
    target, result = moved(source, patches=((1, 1, 32, 32),))
    old, new = source.embeddings[0], target.embeddings[0]
    assert torch.equal(new.field_weight[:3], old.field_weight)
    assert torch.equal(new.stages[0].weight, old.stages[0].weight)
    assert "embeddings.0.stages.1.weight" not in result.reused
    assert "Level [1, 1, 32, 32] is new: " in result.sentences[2] and "0 of" in result.sentences[2]
    assert result.sentences[3] == "Levels of the pretrained model without a place: [1, 1, 16, 16], [1, 1, 4, 4]."
    batch = make_batch(grid=(1, 64, 64), dtype=torch.float64)
    assert torch.equal(target.predict(batch), batch.last)


def test_a_model_of_the_plane_goes_on_in_space_with_a_new_stem_and_the_old_blocks():
    source = make_model(PATCHES, rotary=False)
    target, result = moved(source, patches=((1, 8, 8, 8), (1, 4, 4, 4)))
    assert all(torch.equal(a, b) for a, b in zip(source.blocks.parameters(), target.blocks.parameters(), strict=True))
    assert not any(name.startswith(("embeddings", "decoders", "local")) for name in result.reused)
    assert "Part 'local' is new: the pretrained model has none, or another." in result.sentences
    assert target.predict(make_batch(grid=(8, 16, 16), dtype=torch.float64)).isfinite().all()


def test_parts_that_the_pretrained_model_lacks_are_new_and_said_to_be():
    source = make_model(PATCHES, local=0, statistics=False)
    target, result = moved(source, local=3, statistics=True)
    assert result.sentences[-2:] == tuple(
        f"Part {part!r} is new: the pretrained model has none, or another." for part in ("conditions", "local")
    )
    assert not any(name.startswith(("conditions", "local")) for name in result.reused)
    assert all((scheme.field_out == 0).all() for scheme in target.local.schemes)


def test_parts_that_the_run_does_without_are_left_out(source):
    target, result = moved(source, local=0, statistics=False)
    assert target.local is None and target.conditions is None and not any("Part" in line for line in result.sentences)
    assert not any(name.startswith(("conditions", "local")) for name in result.reused)


@pytest.mark.parametrize("other", [{"local": 5}, {"local_layers": (1, 1, 1)}, {"local_scales": (1, 1, 8)}])
def test_another_operator_is_new(source, other):
    _, result = moved(source, **other)
    assert "Part 'local' is new: the pretrained model has none, or another." in result.sentences
    assert "conditions.field_weight" in result.reused and not any(name.startswith("local") for name in result.reused)


def test_a_local_operator_that_is_to_start_anew_keeps_its_initial_weights(source):
    target, result = moved(source, start="new")
    assert result.sentences[-1] == "The local operator starts anew, as finetune.local asks."
    assert not any(name.startswith("local") for name in result.reused)
    assert all((scheme.field_out == 0).all() for scheme in target.local.schemes)


@pytest.mark.parametrize("layers", [(), (1, 1, 1)])
def test_a_local_operator_with_features_alone_predicts_no_change_at_first(layers):
    source = make_model(PATCHES, local_layers=layers)
    for parameter in source.local.parameters():
        torch.nn.init.normal_(parameter)
    target, result = moved(source, start="features")
    assert any("predicts no change at first" in line for line in result.sentences)
    of_source = dict(source.local.named_parameters())
    for name, parameter in target.local.named_parameters():
        last = name.split(".")[-1]
        if last in LOCAL_OUTPUTS or (layers and name.endswith("modulate.weight")):
            assert (parameter == 0).all() and f"local.{name}" not in result.reused
        elif last in FIELD_ROWS["local"]:
            assert torch.equal(parameter[: len(source.config.fields)], of_source[name])
        else:
            assert torch.equal(parameter, of_source[name])


@pytest.mark.parametrize("layers", [(2, 1, 1), (1, 1, 2)])
def test_a_network_with_other_layers_is_new(layers):
    _, result = moved(make_model(PATCHES, local_layers=(1, 1, 1)), local_layers=layers)
    assert "Part 'local' is new: the pretrained model has none, or another." in result.sentences


def test_rows_of_a_network_on_the_cells_go_by_name():
    source = make_model(PATCHES, local_layers=(1, 1, 1))
    target, result = moved(source)
    for name in ("field_weight", "field_stencil", "field_linear", "field_out"):
        ours, theirs = (getattr(model.local.schemes[0], name) for model in (target, source))
        row = target.config.fields.index("activator"), source.config.fields.index("activator")
        assert torch.equal(ours[row[0]], theirs[row[1]]) and f"local.schemes.0.{name}" in result.reused
    assert torch.equal(target.local.schemes[2].factors, source.local.schemes[2].factors)


def test_a_longer_history_needs_no_new_weights(source):
    target, result = moved(source, fields=source.config.fields, history=6)
    assert "The history has 6 frames instead of 2; no weight depends on it." in result.sentences
    assert sum(result.reused.values()) == sum(parameter.numel() for parameter in target.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheme": "svit"}, "has scheme vit, the run asks for svit"),
        ({"predict": "field"}, "has predict rate, the run asks for field"),
        ({"rotary": False}, "has rotary True, the run asks for False"),
    ],
)
def test_what_the_blocks_cannot_do_is_refused(source, changes, message):
    with pytest.raises(ValueError, match=message):
        moved(source, **changes)


@pytest.mark.parametrize(("scheme", "rotary"), [("avit", False), ("vit", True)])
def test_attention_by_axes_is_refused_an_axis_that_it_never_saw(scheme, rotary):
    with pytest.raises(ValueError, match="attends along y x, .* ask for attention along z y x"):
        moved(make_model(PATCHES, scheme=scheme, rotary=rotary), scheme=scheme, patches=((1, 4, 4, 4),))


def test_a_copy_of_an_unknown_field_names_the_nearest(source):
    with pytest.raises(ValueError, match="'activater', which the pretrained model lacks; .* Did you mean 'activator'"):
        moved(source, "copy:activater")
