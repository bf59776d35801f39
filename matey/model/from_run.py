"""The network that a run asks for."""

from __future__ import annotations

from matey.config import ConfigError, RunConfig, parse_config
from matey.config.network_sections import ModelSection
from matey.model.configuration import ARGUMENTS, SIZES, MateyConfig

# Keys that are handled apart: the named size, and the run's own fields and machine. So is the whole section `tokens`.
_BESIDE = ("size", "fields", "attention")
_SIZE_SETTINGS = ("num_heads", "width", "num_blocks")
# Keys of the run YAML that describe a network, by section; `MateyConfig` has the same names.
NAMES = {"model": tuple(name for name in ModelSection.model_fields if name not in _BESIDE), "data": ("history",)}
_SAID = [*_BESIDE, "tokens", *_SIZE_SETTINGS, *(name for names in NAMES.values() for name in names)]
# Arguments that come from the pretrained model because no run YAML sets them: all others, so that no new one is forgotten.
FIXED = tuple(sorted(ARGUMENTS - {*_SAID}))
assert not (unknown := set(_SAID) - {*ARGUMENTS, "size"}), f"MateyConfig takes no {unknown}, which a run YAML may say"


def with_network_of(run: RunConfig, pretrained: MateyConfig) -> RunConfig:
    """Fill in the keys that the run does not state from a pretrained model; the vocabulary is left to `with_vocabulary`.

    Raises:
        ConfigError: the model has none of the named sizes, or the keys that the run states contradict the rest.
    """
    tree = run.model_dump(mode="json")
    for section, names in NAMES.items():
        stated = getattr(run, section).model_fields_set
        tree[section] |= {name: getattr(pretrained, name) for name in names if name not in stated}
    for key in ("given", "parameters"):  # the pretrained model has weights for its own already
        tree["model"][key] = list(dict.fromkeys([*getattr(pretrained, key), *getattr(run.model, key)]))
    tree["tokens"] |= pretrained.tokens.model_dump(mode="json", exclude=run.tokens.model_fields_set)
    shape = (pretrained.num_heads, pretrained.width, pretrained.num_blocks)
    size = next((name for name, numbers in SIZES.items() if numbers == shape), None)
    if size is None:
        raise ConfigError(
            f"The pretrained model has {shape[0]} heads, width {shape[1]} and {shape[2]} blocks, which is none of the sizes "
            f"{', '.join(SIZES)}."
        )
    if "size" not in run.model.model_fields_set:
        tree["model"]["size"] = size
    return parse_config(tree, "the run YAML with what it leaves to the pretrained model")


def model_config(run: RunConfig, pretrained: MateyConfig | None = None) -> MateyConfig:
    """Return the architecture that the run asks for; arguments that no run YAML sets come from the pretrained model."""
    stated = {name: getattr(getattr(run, section), name) for section, names in NAMES.items() for name in names}
    fixed = {} if pretrained is None else {name: getattr(pretrained, name) for name in FIXED}
    return MateyConfig.from_size(
        run.model.size, fields=run.model.fields, tokens=run.tokens, attention=run.model.attention, **stated, **fixed
    )
