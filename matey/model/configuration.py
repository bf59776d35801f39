"""The model's configuration, in the form that Hugging Face saves beside the weights, and that which a run asks for."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from pydantic import ValidationError
from transformers import PretrainedConfig

from matey.config import ConfigError, RunConfig, parse_config
from matey.config.loading import FOLDERS, find_shipped, sentences, shortened
from matey.config.schema import ModelSection, TokensSection
from matey.config.section import Section
from matey.mistakes import Mistake, listed, nearest_name
from matey.tokens.patches import Patch
from matey.tokens.refinement import Refinement

SectionT = TypeVar("SectionT", bound=Section)

SIZES = {
    # heads, width, blocks; micro is for tests and the demo, mini lies between it and the paper's, which are the others
    "micro": (3, 96, 2),
    "mini": (4, 128, 8),
    "Ti": (3, 192, 12),
    "S": (6, 384, 12),
    "B": (12, 768, 12),
}

NUM_SCALES = 3

Ranges: TypeAlias = Mapping[str, Sequence[Sequence[float]]]
"""Smallest and largest values of a few numbers by name, ``[[low, ...], [high, ...]]``."""

# Keys that config.json must state: without one of them, a network other than the saved one would be built.
STATED = ("tokens", "history", "network", "statistics", "predict")
DTYPES = (None, "float32", "float64", "bfloat16", "float16")
# Arguments that the run YAML's schema checks; names of fields and parameters are checked here.
SAME_IN_RUN = tuple(key for key in ModelSection.model_fields if key not in ("size", "fields", "given", "parameters"))
DEFAULT_TOKENS = TokensSection()


class MateyConfig(PretrainedConfig):
    """Architecture of a `MateyModel`; arguments that the run YAML also sets have the same names and defaults there.

    Args:
        fields: vocabulary, a row of the embedding and the decoder for each name; appending a name keeps all other rows.
        tokens: the tokenizer, keys and values as in the section `tokens` of the run YAML: ``{"set": "uniform", "patches":
            [[1, 1, 8, 8]]}``; see `matey.config.schema.TokensSection`.
        scheme: ``vit`` (full attention), ``svit`` (time, then space), ``avit`` (time, then each axis) or a package's.
        history: number of history frames that the model is trained on.
        num_heads: number of attention heads.
        width: embedding width ``e``, a multiple of the number of heads.
        num_blocks: number of transformer blocks.
        mlp_ratio: hidden width of a block's MLP divided by ``e``.
        attention: backend of `matey.model.attention.segment_attention`; it decides how attention runs, not its result.
        network: kind of network, ``matey`` (tokens are the coarse scales of a network on the cells), ``paper`` (tokens
            alone) or ``cells`` (no tokens).
        channels: number of features of a cell.
        layers: number of layers on the cells before and after the tokens.
        maps: number of maps of neighbours before and after the blocks.
        rotary: whether queries and keys are turned by the places of their tokens, see `matey.model.embedding`.
        statistics: whether the network is told the scales that the normalisation removes from a sample; by default it is,
            unless it is the paper's.
        scales: ranges of these scales in training, by field, see `matey.model.given`; scales outside are told as the nearest
            value inside. None: no ranges.
        spacings: ranges of the time step and of the spacing along ``z, y, x`` in training, by system.
        predict: ``change`` (added to the last frame, in units of the field's deviation), ``rate`` (the same in units of the
            last change times the lead time) or ``field`` (the absolute field). By default ``field`` in the paper's network,
            else ``rate``.
        drop_path: probability that a sample skips a residual of the last block in training; it rises linearly from 0 in the
            first block.
        num_wavelengths: number of wavelengths of the Fourier features of each position and of the lead time.
        longest_lead: wavelength in snapshots of the slowest Fourier feature of the lead time.
        given: names of fields in the vocabulary that the model is given and does not predict, such as a forcing.
        parameters: names of the numbers that the model takes, such as a viscosity; a sample may lack some of them.
    """

    model_type = "matey"

    def __init__(
        self,
        fields: Sequence[str] = (),
        tokens: TokensSection | Mapping[str, Any] = DEFAULT_TOKENS,
        scheme: str = "vit",
        history: int = 4,
        num_heads: int = 3,
        width: int = 192,
        num_blocks: int = 12,
        mlp_ratio: float = 4.0,
        attention: str = "auto",
        network: str = "matey",
        channels: int = 24,
        layers: Sequence[int] = (1, 1),
        maps: int = 2,
        rotary: bool = False,
        statistics: bool | None = None,
        scales: Ranges | None = None,
        spacings: Ranges | None = None,
        predict: str | None = None,
        drop_path: float = 0.0,
        num_wavelengths: int = 16,
        longest_lead: float = 256.0,
        given: Sequence[str] = (),
        parameters: Sequence[str] = (),
        **kwargs: Any,  # noqa: ANN401 (what Hugging Face passes through)
    ) -> None:
        for key in kwargs:
            if key in TokensSection.model_fields:
                raise ValueError(f"{key} belongs to tokens, as in the run YAML: tokens={{{key!r}: {kwargs[key]!r}}}.")
            if not (key.startswith("_") or key == "attn_implementation" or hasattr(PretrainedConfig, key)):
                raise ValueError(f"MateyConfig takes no {key!r}.{nearest_name(key, ARGUMENTS)}")
        self.fields = list(fields)
        self.tokens = tokens if isinstance(tokens, TokensSection) else _parsed(TokensSection, tokens, "tokens")
        self.scheme = scheme
        self.history = history
        self.num_heads = num_heads
        self.width = width
        self.num_blocks = num_blocks
        self.mlp_ratio = mlp_ratio
        self.attention = attention
        self.network, self.channels, self.layers, self.maps = network, channels, list(layers), maps
        self.rotary = rotary
        self.statistics = network != "paper" if statistics is None else statistics
        self.predict = predict or ("field" if network == "paper" else "rate")
        self.scales, self.spacings = scales, spacings
        self.drop_path = drop_path
        self.num_wavelengths = num_wavelengths
        self.longest_lead = longest_lead
        self.given, self.parameters = list(given), list(parameters)
        self._check()
        super().__init__(**kwargs)

    @classmethod
    def from_size(cls, size: str, **kwargs: Any) -> MateyConfig:  # noqa: ANN401
        """Return the configuration of a named size: micro, mini, Ti, S or B."""
        if size not in SIZES:
            raise ValueError(f"There is no model size {size!r}; choose one of {', '.join(SIZES)}.")
        heads, width, blocks = SIZES[size]
        return cls(num_heads=heads, width=width, num_blocks=blocks, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Read a model's ``config.json``; a name that leads nowhere is refused at once.

        Raises:
            OSError: there is no such file.
        """
        pretrained_model_name_or_path = place_of(pretrained_model_name_or_path)
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:  # noqa: ANN401
        """Read a model's ``config.json``.

        Raises:
            Mistake: the file lacks a key that decides which network it describes, or has one that no model of MATEY has.
        """
        check_stated(config_dict)
        # Those that the call states are checked like those of the file; Hugging Face would set them as attributes.
        stated = {key: kwargs.pop(key) for key in kwargs.keys() & ARGUMENTS}
        # Attention is MATEY's own, so that Hugging Face has none to look for.
        return super().from_dict({**config_dict, **stated, "attn_implementation": "eager"}, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of ``config.json``."""
        tree = super().to_dict() | {"tokens": self.tokens.model_dump(mode="json")}
        return {key: value for key, value in tree.items() if key in SAVED}

    @property
    def has_tokens(self) -> bool:
        """Whether the network has tokens."""
        return self.network != "cells"

    @property
    def has_cells(self) -> bool:
        """Whether the network has features on the cells."""
        return self.network != "paper"

    @property
    def mixes_neighbours(self) -> bool:
        """Whether tokens are mixed with their neighbours on the mesh."""
        return self.has_tokens and self.has_cells

    @property
    def patches(self) -> tuple[Patch, ...]:
        """Sizes ``[t, z, y, x]`` in frames and cells per level, coarse to fine."""
        return self.tokens.patches

    @property
    def refinement(self) -> Refinement:
        """The rule by which patches are split."""
        tokens = self.tokens
        return Refinement(
            rule=tokens.rule,
            refine=tokens.refine,
            values=tokens.values,
            change=tokens.change,
            keep_parents=tokens.set == "mul",
            criterion=tokens.criterion,
        )

    def _check(self) -> None:
        if len(set(self.fields)) != len(self.fields):
            raise ValueError(f"The field vocabulary names a field twice: {', '.join(self.fields)}.")
        if (names := self.parameters) != list(dict.fromkeys(names)):
            raise ValueError(f"parameters names a parameter twice: {', '.join(names)}.")
        if lacking := [name for name in self.given if name not in self.fields]:
            raise ValueError(f"given names {lacking[0]!r}, which is not in the vocabulary fields; add it there.")
        _parsed(ModelSection, {key: getattr(self, key) for key in SAME_IN_RUN}, "model", strict=True)
        check_ranges("scales", self.scales, NUM_SCALES)
        check_ranges("spacings", self.spacings, 4)
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of the {self.num_heads} heads.")
        if self.width % 4:
            raise ValueError(f"width {self.width} is not a multiple of 4, which the patch stem needs.")


ARGUMENTS = inspect.signature(MateyConfig.__init__).parameters.keys() - {"self", "kwargs"}
SAVED = ARGUMENTS | {"architectures", "dtype", "model_type", "transformers_version"}
"""The keys of ``config.json``. By others Hugging Face would set attributes, run other code or ask servers for it."""


def check_stated(tree: Mapping[str, Any]) -> None:
    """Raise Mistake if a ``config.json`` lacks a key that decides which network it describes, or has another one."""
    if strange := sorted(tree.keys() - SAVED - {"_commit_hash"}):  # which Hugging Face adds to what it reads
        raise Mistake(
            f"config.json has {listed(map(shortened, strange))}, which no model of MATEY has; take a model that it saved."
        )
    if missing := [key for key in STATED if key not in tree]:
        raise Mistake(
            f"config.json does not state {', '.join(missing)}, as every model of this version does; take a model that it saved."
        )
    if (dtype := tree.get("dtype")) not in DTYPES:
        raise Mistake(
            f"config.json has dtype {shortened(dtype)}, expected one of {', '.join(filter(None, DTYPES))}; correct it."
        )


def _parsed(section: type[SectionT], tree: Mapping[str, Any], name: str, *, strict: bool = False) -> SectionT:
    try:
        return section.model_validate(tree, strict=strict)
    except ValidationError as error:
        raise ValueError(f"{name}: {sentences(error, section)}") from None


ADAPTER = "adapter_config.json"
_ON_HUB = re.compile(r"[\w.-]+/[\w.-]+")


def place_of(name: str | os.PathLike[str]) -> str:
    """Return the folder of a model that comes with the program, or any other name as it is.

    Raises:
        Mistake: the folder holds an adapter, whose file names a model that Hugging Face would look for.
        FileNotFoundError: the name is no folder or file here, and cannot be that of a model on the Hugging Face Hub; Hugging
            Face raises an OSError too.
    """
    text = os.fspath(name)
    if os.path.lexists(os.path.join(text, ADAPTER)):
        raise Mistake(
            f"{text} holds {ADAPTER}, which no model of MATEY has; remove it, or take a model that MATEY saved."
        )
    if os.path.exists(text):
        return text
    if text and (found := find_shipped(text)).is_dir():
        return str(found)
    first = Path(text).parts[:1]
    if not _ON_HUB.fullmatch(text) or text.startswith(".") or first[0] in FOLDERS:
        raise FileNotFoundError(
            f"There is no folder {text} here, and it is no owner/name of a model on the Hugging Face Hub; give the folder that "
            "save_pretrained wrote, such as model/ of a run."
        )
    return text


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


def check_ranges(key: str, ranges: Ranges | None, size: int) -> None:
    """Raise ValueError unless each name has ``size`` finite lower bounds and as many upper bounds that are not smaller."""
    wants = f"[[{', '.join(['low'] * size)}], [{', '.join(['high'] * size)}]]"
    if not isinstance(ranges, Mapping | None):
        raise ValueError(f"{key} must hold names, each with {wants}, got {ranges!r}.")
    for name, bounds in (ranges or {}).items():
        try:
            found = torch.tensor(bounds, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            found = torch.empty(0)
        if found.shape != (2, size) or not found.isfinite().all() or (found[0] > found[1]).any():
            raise ValueError(f"{key} of {name!r} must be {wants}, got {bounds!r}.")
