"""What a forecast costs: tokens, beside those of a uniform grid of the finest patches, and seconds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from matey.evaluate.forecaster import Forecaster, patches_of
from matey.samples import Samples
from matey.tokens.patches import cover, patch_grid


@dataclass(frozen=True)
class BatchCost:
    """Costs of the forecasts of one batch.

    Attributes:
        system: name of the PDE system.
        num_samples: number of forecasts in the batch.
        num_tokens: number of tokens of all samples together; not a number for a peer, which has none.
        num_uniform_tokens: number of tokens of all samples together if each were cut into the finest patches
            throughout; not a number for a peer.
        seconds: seconds for the whole batch, from the fields in main memory to the prediction there.
    """

    system: str
    num_samples: int
    num_tokens: float
    num_uniform_tokens: float
    seconds: float


@dataclass(frozen=True)
class Cost:
    """Mean cost of one forecast of a system.

    Attributes:
        system: name of the PDE system.
        tokens: mean tokens per sample; not a number for a peer, which has none.
        uniform_tokens: mean tokens per sample of the uniform grid of the finest patches; not a number for a peer.
        seconds: median over the batches of the seconds per sample, so that the first batch's warm-up does not count.
        num_forecasts: number of forecasts that these means are taken over.
    """

    system: str
    tokens: float
    uniform_tokens: float
    seconds: float
    num_forecasts: int

    @property
    def share(self) -> float:
        """Tokens over those of the uniform grid."""
        return self.tokens / self.uniform_tokens


def batch_cost(model: Forecaster, samples: Samples, num_tokens: float, seconds: float) -> BatchCost:
    """Set the tokens that ``model`` spent on some samples, not a number if it has none, beside those of a uniform grid."""
    uniform = num_uniform_tokens(model, samples) * samples.number
    return BatchCost(samples.system, samples.number, num_tokens, uniform, seconds)


def num_uniform_tokens(model: Forecaster, samples: Samples) -> float:
    """Return how many tokens a sample would have, were it cut into the finest patches throughout; of peers not a number."""
    if not (patches := patches_of(model)):
        return math.nan
    finest = patches[-1]
    return math.prod(patch_grid(cover(samples.window, finest), finest))


def mean_costs(batches: Sequence[BatchCost]) -> list[Cost]:
    """Average batches into one cost per system, in the order in which the systems first come."""
    costs = []
    for system in dict.fromkeys(batch.system for batch in batches):
        own = [batch for batch in batches if batch.system == system]
        num_forecasts = sum(batch.num_samples for batch in own)
        costs.append(
            Cost(
                system=system,
                tokens=sum(batch.num_tokens for batch in own) / num_forecasts,
                uniform_tokens=sum(batch.num_uniform_tokens for batch in own) / num_forecasts,
                seconds=statistics.median(batch.seconds / batch.num_samples for batch in own),
                num_forecasts=num_forecasts,
            )
        )
    return costs
