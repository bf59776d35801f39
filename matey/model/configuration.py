"""The model's configuration, in the form that Hugging Face saves beside the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PretrainedConfig

from matey.config.choices import BACKENDS, CRITERIA, SCHEMES
from matey.tokens.patches import Patch, check_levels
from matey.tokens.refinement import Refinement, Rule, Values

SIZES = {
    # heads, width, blocks; micro is for tests and the demo, the others are the paper's
    "micro": (3, 96, 4),
    "Ti": (3, 192, 12),
    "S": (6, 384, 12),
    "B": (12, 768, 12),
}


# What the run YAML's section `tokens` says, and what it is called here, beside other settings.
OF_TOKENS = {
    "set": "token_set",
    "patches": "patches",
    "rule": "refine_rule",
    "refine": "refine_amount",
    "values": "refine_values",
    "criterion": "refine_criterion",
    "change": "refine_change",
}
# What a network was before there was a key for it: older models' ``config.json`` does not name these.
BEFORE_THE_KEY = {"local": 0, "local_scales": [1], "statistics": False, "predict": "change", "history": 1}


class MateyConfig(PretrainedConfig):
    """Architecture of a `MateyModel`; what the run YAML sets as well has the defaults that it has there.

    Args:
        fields: vocabulary, a row of the embedding and the decoder for each name; appending a name keeps all other rows.
        patches: sizes ``[t, z, y, x]`` in frames and cells per level, coarse to fine.
        scheme: ``vit`` (full attention), ``svit`` (time, then space), ``avit`` (time, then each axis) or a package's.
        token_set: kind of tokens (`tokens.set` of the run YAML), ``uniform`` (one level), ``mix`` (children replace their
            parent) or ``mul`` (children beside it: the coarsest tokens attend to each other, the children of each parent
            among themselves, and what is decoded for children is added to what is for their parent).
        refine_rule: rule of refinement (`tokens.rule`), ``threshold``, ``fraction`` or ``budget``, see
            `matey.tokens.refinement.Refinement`.
        refine_amount: the rule's threshold, share or number of tokens (`tokens.refine`).
        refine_values: fields that decide where to refine (`tokens.values`), ``normalised`` or ``raw``.
        refine_criterion: measure that is compared between patches (`tokens.criterion`), ``variance`` or a package's.
        refine_change: weight of the change between the last two frames in that decision (`tokens.change`).
        normalisation: normalisation of the inputs: ``sample``, every field of a sample by its own mean and deviation
            over the history, undone on the output; there is no other, and a file that names one is refused.
        history: frames of history it is trained on.
        num_heads: attention heads.
        width: embedding width ``e``, a multiple of the heads.
        num_blocks: transformer blocks.
        mlp_ratio: hidden width of a block's MLP over ``e``.
        halo: number of cells by which the decoder sees the last frame beyond the block of cells that it writes.
        attention: backend of `matey.model.attention.segment_attention`; what runs it, not what it computes.
        overlap: cells that decoded blocks of cells reach into their neighbours, where they are blended.
        local: products per cell of the local operator beside the tokens, see `matey.model.local`; 0: there is none.
        local_scales: cells along each axis that the operator's schemes take the mean of, one after the other.
        statistics: whether the network is told the scales that the normalisation takes out of a sample.
        predict: ``change`` (added to the last frame, in units of the field's deviation), ``rate`` (the same in units of the
            last change times the lead time) or ``field`` (the absolute field, as in the paper).
        drop_path: probability that a sample skips a residual of the last block in training; it rises linearly from 0 in the
            first block.
        num_wavelengths: wavelengths of the Fourier features of each position and of the lead time.
        longest_lead: wavelength in snapshots of the slowest Fourier feature of the lead time.
    """

    model_type = "matey"

    def __init__(
        self,
        fields: Sequence[str] = (),
        patches: Sequence[Sequence[int]] = ((1, 1, 32, 32), (1, 1, 8, 8)),
        scheme: str = "vit",
        token_set: str = "mix",
        refine_rule: Rule = "threshold",
        refine_amount: float = 0.2,
        refine_values: Values = "normalised",
        refine_criterion: str = "variance",
        refine_change: float = 0.0,
        normalisation: str = "sample",
        history: int = 4,
        num_heads: int = 3,
        width: int = 192,
        num_blocks: int = 12,
        mlp_ratio: float = 4.0,
        halo: int = 2,
        overlap: int = 2,
        attention: str = "auto",
        local: int = 16,
        local_scales: Sequence[int] = (1, 2, 4, 8),
        statistics: bool = True,
        predict: str = "rate",
        drop_path: float = 0.0,
        num_wavelengths: int = 16,
        longest_lead: float = 256.0,
        **kwargs: Any,  # noqa: ANN401 (what Hugging Face passes through)
    ) -> None:
        for key in OF_TOKENS.keys() & kwargs.keys():
            raise ValueError(f"What the run YAML calls tokens.{key} is {OF_TOKENS[key]} here.")
        self.fields = list(fields)
        self.patches: list[Patch] = [tuple(patch) for patch in patches]  # type: ignore[misc]  # lengths are checked below
        self.scheme = scheme
        self.token_set = token_set
        self.refine_rule = refine_rule
        self.refine_amount = refine_amount
        self.refine_values = refine_values
        self.refine_criterion = refine_criterion
        self.refine_change = refine_change
        self.normalisation = normalisation
        self.history = history
        self.num_heads = num_heads
        self.width = width
        self.num_blocks = num_blocks
        self.mlp_ratio = mlp_ratio
        self.halo = halo
        self.overlap = overlap
        self.attention = attention
        self.local = local
        self.local_scales = list(local_scales)
        self.statistics = statistics
        self.predict = predict
        self.drop_path = drop_path
        self.num_wavelengths = num_wavelengths
        self.longest_lead = longest_lead
        self._check()
        super().__init__(**kwargs)

    @classmethod
    def from_size(cls, size: str, **kwargs: Any) -> MateyConfig:  # noqa: ANN401
        """Return the configuration of a named size: micro, Ti, S or B."""
        if size not in SIZES:
            raise ValueError(f"There is no model size {size!r}; choose one of {', '.join(SIZES)}.")
        heads, width, blocks = SIZES[size]
        return cls(num_heads=heads, width=width, num_blocks=blocks, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:  # noqa: ANN401
        """Read what a model's ``config.json`` holds; what an older one does not name is as it was then."""
        return super().from_dict(BEFORE_THE_KEY | config_dict, **kwargs)

    @property
    def refinement(self) -> Refinement:
        """The rule by which patches are split."""
        keep_parents = self.token_set == "mul"
        how = self.refine_rule, self.refine_amount, self.refine_values, self.refine_change, keep_parents
        return Refinement(*how, self.refine_criterion)

    def _check(self) -> None:
        check_levels(self.patches)
        if len(set(self.fields)) != len(self.fields):
            raise ValueError(f"The field vocabulary names a field twice: {', '.join(self.fields)}.")
        for name, registry in ((self.scheme, SCHEMES), (self.attention, BACKENDS), (self.refine_criterion, CRITERIA)):
            registry.check(name)
        if self.token_set not in ("uniform", "mix", "mul"):
            raise ValueError(f"token_set must be 'uniform', 'mix' or 'mul', got {self.token_set!r}.")
        if self.refine_rule not in ("threshold", "fraction", "budget"):
            raise ValueError(f"refine_rule must be 'threshold', 'fraction' or 'budget', got {self.refine_rule!r}.")
        if self.refine_values not in ("normalised", "raw"):
            raise ValueError(f"refine_values must be 'normalised' or 'raw', got {self.refine_values!r}.")
        if self.token_set == "uniform" and len(self.patches) > 1:
            raise ValueError(f"A uniform token set has one patch size, got {len(self.patches)}; use 'mix' or 'mul'.")
        if self.normalisation != "sample":
            raise ValueError(f"normalisation must be 'sample', got {self.normalisation!r}.")
        if self.predict not in ("rate", "change", "field"):
            raise ValueError(f"predict must be 'rate', 'change' or 'field', got {self.predict!r}.")
        if not isinstance(self.local, int) or self.local < 0:
            raise ValueError(f"local is a number of products per cell, 0 for none, got {self.local!r}.")
        if not self.local_scales or any(not isinstance(scale, int) or scale < 1 for scale in self.local_scales):
            raise ValueError(f"local_scales are numbers of cells from 1 on, at least one, got {self.local_scales}.")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path is a probability below 1, got {self.drop_path:g}.")
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of the {self.num_heads} heads.")
        if self.width % 4:
            raise ValueError(f"width {self.width} is not a multiple of 4, which the patch stem needs.")
