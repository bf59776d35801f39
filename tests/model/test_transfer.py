"""A trained model's weights in a model with other fields, patches and levels."""

import pytest
import torch

from matey import MateyConfig, MateyModel
from matey.model.parts import CELL_OUTPUTS, FIELD_ROWS, part_of
from matey.model.transfer import transfer
from tests.support.models import VOCABULARY, make_batch, make_model

PATCHES = ((1, 1, 16, 16), (1, 1, 4, 4))
NEW = ("density", "magnetic_x")


def moved(source, new_rows="zero", *, start="pretrained", **changes):
    """A target that differs from the source by `changes`, with what fits copied."""
    settings = {"fields": (*source.config.fields, *NEW)}
    same = ("network", "channels", "layers", "maps", "rotary", "statistics", "predict")
    settings |= {name: getattr(source.config, name) for name in same} | changes
    patches = settings.pop("patches", source.config.patches)
    tokens = {"set": "mix" if len(patches) > 1 else "uniform", "patches": patches, "refine": 0.3}
    torch.manual_seed(1)
    config = MateyConfig(**{"tokens": tokens, "num_heads": 3, "width": 24, "num_blocks": 2, "history": 2, **settings})
    target = MateyModel(config).double().eval()
    new = {name: new_rows for name in target.config.fields if name not in source.config.fields}
    return target, transfer(source, target, new, cells=start)


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
    of_cells = {name for module, name in checked if module == "cells_after"}
    assert of_cells == {"field_weight", "field_stencil", "field_mix", "field_out", "field_bias"}
    assert {module for module, _ in checked} == {"embeddings", "conditions", "cells_before", "cells_after"}


def test_a_copied_field_is_predicted_as_the_one_it_was_copied_from(source):
    target, _ = moved(source, "copy:water_height")
    batch = make_batch(dtype=torch.float64)
    same = make_batch("gas", ("density",), dtype=torch.float64)
    assert torch.equal(target.predict(same), source.predict(batch))


def test_a_new_level_takes_the_first_stages_of_the_nearest_and_changes_no_forecast(source):
    target, result = moved(source, patches=((1, 1, 32, 32),))
    old, new = source.embeddings[0], target.embeddings[0]
    assert torch.equal(new.field_weight[:3], old.field_weight)
    assert torch.equal(new.stages[0].weight, old.stages[0].weight)
    assert "embeddings.0.stages.1.weight" not in result.reused
    assert "Level [1, 1, 32, 32] is new: " in result.sentences[2] and "0 of" in result.sentences[2]
    assert result.sentences[3] == "Levels of the pretrained model without a place: [1, 1, 16, 16], [1, 1, 4, 4]."
    batch = make_batch(grid=(1, 64, 64), dtype=torch.float64)
    with target.without_tokens():
        expected = target.predict(batch)
    assert torch.equal(target.predict(batch), expected)


def test_a_kept_level_that_gives_nothing_under_a_smaller_finest_patch_is_named(source):
    _, same = moved(source)
    _, finer = moved(source, patches=(PATCHES[0], (1, 1, 2, 2)))
    words = "What level [1, 1, 16, 16] gives the cells is new"
    assert not any(words in each for each in same.sentences) and any(words in each for each in finer.sentences)


def test_the_paper_s_network_keeps_the_decoders_of_levels_that_it_has():
    source = make_model(PATCHES, network="paper")
    target, result = moved(source, patches=(PATCHES[0], (1, 1, 8, 8)))
    assert torch.equal(target.decoders[0].field_weight[:3], source.decoders[0].field_weight)
    assert (
        not any(name.startswith("decoders.1") for name in result.reused) and not target.decoders[1].field_weight.any()
    )


def test_a_model_of_the_plane_goes_on_in_space_with_a_new_stem_and_the_old_blocks():
    source = make_model(PATCHES, rotary=False)
    target, result = moved(source, patches=((1, 8, 8, 8), (1, 4, 4, 4)))
    for name, weight in source.blocks.named_parameters():
        ours = target.blocks.get_parameter(name)
        # Of the nine places around a token, the middle plane of 27 has the weights.
        assert torch.equal(ours[9:18] if name.endswith("near") else ours, weight)
    assert torch.equal(target.maps_before[0].weight[:, 9 * 24 : 18 * 24], source.maps_before[0].weight)
    assert not target.maps_before[0].weight[:, : 9 * 24].any()
    assert not any(name.startswith(("embeddings", "taking", "giving", "cells")) for name in result.reused)
    assert any(
        "'cells_before' is new, since the pretrained model has no cells along z y x" in each
        for each in result.sentences
    )
    assert target.predict(make_batch(grid=(8, 16, 16), dtype=torch.float64)).isfinite().all()


def test_parts_of_one_of_the_two_models_are_new_or_left_out(source):
    target, result = moved(make_model(PATCHES, statistics=False), statistics=True)
    assert "Part 'conditions' is new, of another shape" in result.sentences[-1]
    assert target.conditions is not None and not any(name.startswith("conditions") for name in result.reused)
    target, result = moved(source, statistics=False)
    assert target.conditions is None and not any("Part" in line for line in result.sentences)


@pytest.mark.parametrize("other", [{"channels": 8}, {"layers": [1, 2]}])
def test_other_layers_on_the_cells_are_new(source, other):
    _, result = moved(source, **other)
    assert any("Part 'cells_after' is new, of another shape" in each for each in result.sentences)
    assert "conditions.field_weight" in result.reused
    assert not any(name.startswith("cells_after") for name in result.reused)


def test_cells_that_are_to_start_anew_keep_their_initial_weights(source):
    target, result = moved(source, start="new")
    assert result.sentences[-1] == "The network on the cells starts anew, as finetune.cells asks."
    assert not any(name.startswith("cells_") for name in result.reused)
    assert not target.cells_after.field_out.any()


def test_cells_with_features_alone_predict_no_change_at_first(source):
    target, result = moved(source, start="features")
    assert any("predict no change at first" in line for line in result.sentences)
    of_source, batch = dict(source.named_parameters()), make_batch(dtype=torch.float64)
    for name, parameter in target.named_parameters():
        if name in CELL_OUTPUTS or (name.startswith("cells") and "modulate.weight" in name):
            assert not parameter.any() and name not in result.reused
        elif name.startswith("cells") and name.split(".")[-1] in FIELD_ROWS["cells_after"]:
            assert torch.equal(parameter[: len(source.config.fields)], of_source[name])
        elif name.startswith("cells"):
            assert torch.equal(parameter, of_source[name])
    assert torch.equal(target.predict(batch), batch.last)


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
        ({"network": "paper"}, "has network matey, the run asks for paper"),
        ({"maps": 2}, "has maps of neighbours 1, the run asks for 2"),
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
