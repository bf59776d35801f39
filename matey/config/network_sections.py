"""The sections of the run YAML that describe the network; a saved model has the same settings under the same names."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from matey.config.choices import Backend, Criterion, RefineRule, RefineValues, Scheme
from matey.config.section import FieldName, Section

_Extent = Annotated[int, Field(ge=1, le=4096)]


def _four(size: Any) -> Any:  # noqa: ANN401
    if not isinstance(size, list | tuple) or len(size) != 4:
        raise ValueError("expected 4 numbers [t, z, y, x]")
    return tuple(size)  # strictly, a list is none


PatchSize = Annotated[tuple[_Extent, _Extent, _Extent, _Extent], BeforeValidator(_four)]
Layers = Annotated[list[Annotated[int, Field(ge=0, le=16)]], Field(min_length=2, max_length=2)]
TokenSet = Literal["uniform", "mix", "mul"]


class ModelSection(Section):
    """Settings of the network."""

    size: Literal["micro", "mini", "Ti", "S", "B"] = Field(
        "Ti", description="heads, width and blocks: 3/96/2, 4/128/8 or the paper's"
    )
    scheme: Scheme = Field("vit", description="attention: full; over time, then space; over time, then each axis")
    drop_path: float = Field(
        0.0, ge=0, lt=1, description="probability that a sample skips a residual of the last block"
    )
    attention: Backend = Field("auto", description="implementation of attention: the fastest available, or one by name")
    network: Literal["matey", "paper", "cells"] = Field(
        "matey",
        description="tokens as the coarse scales of a network on the cells; tokens alone, as in the paper; no tokens",
    )
    channels: int = Field(24, ge=4, le=1024, description="features of a cell")
    layers: Layers = Field([1, 1], description="layers on the cells before and after the tokens")
    maps: int = Field(2, ge=0, le=16, description="maps of neighbours before and after the blocks")
    rotary: bool = Field(
        False,
        description="whether rotary positions tell attention how far apart tokens are; the paper's network has none",
    )
    statistics: bool | None = Field(
        None,
        description="whether the network is told the scales that the normalisation takes out; false: units cannot matter. By "
        "default all networks are but the paper's",
    )
    predict: Literal["rate", "change", "field"] | None = Field(
        None,
        description="quantity decoded: change over last change and lead, the default; change over deviation of the field; or "
        "the field, the default of the paper's network",
    )
    fields: tuple[FieldName, ...] | None = Field(
        None, description="field vocabulary; by default the fields of the data sets"
    )
    given: tuple[FieldName, ...] = Field(
        (), description="fields of the data sets that are known beforehand, such as a forcing: inputs, never predicted"
    )
    parameters: tuple[FieldName, ...] = Field(
        (), description="numbers of the trajectories that the network is told, such as a viscosity; some may lack them"
    )


class TokensSection(Section):
    """Settings of the tokenizer."""

    set: TokenSet = Field(
        "mix", description="one patch size, children that replace their parent, or children beside their parent"
    )
    patches: tuple[PatchSize, ...] = Field(
        ((1, 1, 32, 32), (1, 1, 8, 8)), min_length=1, max_length=8, description="[t, z, y, x], coarse to fine"
    )
    rule: RefineRule = Field(
        "threshold",
        description="split above a share of the criterion's largest value, the top share, or until so many tokens",
    )
    refine: float = Field(
        0.2, ge=0, le=1e9, description="the rule's threshold gamma, share, or number of tokens of a sample"
    )
    values: RefineValues = Field("normalised", description="fields whose values decide")
    criterion: Criterion = Field("variance", description="measure by which patches are compared")
    change: float = Field(
        0.0, ge=0, le=1e6, description="weight of the change between the last two frames beside the criterion"
    )

    @model_validator(mode="after")
    def _consistent(self) -> TokensSection:
        if self.set == "uniform" and len(self.patches) > 1:
            raise ValueError(
                f"'uniform' tokens have one patch size, but tokens.patches lists {len(self.patches)}; "
                "keep one of them or use 'mix' or 'mul' as tokens.set"
            )
        for coarse, fine in pairwise(self.patches):
            if any(cells % part for cells, part in zip(coarse, fine, strict=True)) or coarse == fine:
                raise ValueError(
                    f"tokens.patches has {list(fine)} after {list(coarse)}; each size [t, z, y, x] must divide the one before "
                    "it, and differ from it"
                )
        if self.rule == "fraction" and self.refine > 1:
            raise ValueError(f"tokens.refine is a share of the patches for the rule 'fraction', got {self.refine:g}")
        return self
