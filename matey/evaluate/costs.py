"""The cost of a forecast in seconds and in tokens, compared with a uniform grid of the finest patches."""

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
        num_tokens: number of tokens of all samples together; NaN for a peer, which has none.
        num_uniform_tokens: number of tokens of all samples together if each were cut into the finest patches
            everywhere; NaN for a peer.
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
        tokens: mean number of tokens per sample; NaN for a peer, which has none.
        uniform_tokens: mean number of tokens per sample of the uniform grid of the finest patches; NaN for a peer.
        seconds: median over the batches of the seconds per sample, so that the first batch's warm-up does not count.
        num_forecasts: number of forecasts in these means.
    """

    system: str
    tokens: float
    uniform_tokens: float
    seconds: float
    num_forecasts: int

    @property
    def share(self) -> float:
        """Number of tokens divided by that of the uniform grid."""
        return self.tokens / self.uniform_tokens


def batch_cost(model: Forecaster, samples: Samples, num_tokens: float, seconds: float) -> BatchCost:
    """Return the cost of a batch; ``num_tokens`` is NaN for a model without tokens."""
    uniform = num_uniform_tokens(model, samples) * samples.number
    return BatchCost(samples.system, samples.number, num_tokens, uniform, seconds)


def num_uniform_tokens(model: Forecaster, samples: Samples) -> float:
    """Return the number of tokens if the samples were cut into the finest patches everywhere; NaN for peers."""
    if not (patches := patches_of(model)):
        return math.nan
    finest = patches[-1]
    return math.prod(patch_grid(cover(samples.window, finest), finest))


def mean_costs(batches: Sequence[BatchCost]) -> list[Cost]:
    """Average batches into one cost per system, in the order in which the systems first appear."""
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
