"""Describes the origin of a file of forecasts: the model and its card, the data, the program and the command."""

from __future__ import annotations

from datetime import UTC, datetime

import matey
from matey.checkpoints.trained import Trained
from matey.evaluate.conservation import kept_names
from matey.evaluate.forecasts.request import ForecastRequest
from matey.model.transfer import weights_fingerprint

METHOD = "MATEY, https://arxiv.org/abs/2412.20601"


def origin_of(trained: Trained, request: ForecastRequest, command: str | None) -> dict[str, str]:
    """Return the attributes of a file of forecasts that describe its origin.

    Args:
        trained: the model.
        request: the request.
        command: command that makes the file; None if it is made from Python.
    """
    model, config = trained.model, trained.model.config
    kind = "at once" if request.lead >= request.num_steps else f"in steps of {request.lead} snapshots"
    kept = kept_names(request.data, request.trajectories[0]) if request.conserve else []
    kind += f", with the totals kept of {', '.join(kept)}" if kept else ""
    leads = f"leads of 1 to {trained.lead_max} snapshots" if trained.lead_max else "leads that are not recorded"
    facts = {
        "source": f"matey {matey.__version__}, model {trained.name}",
        "references": METHOD,
        "history": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}: {command or 'matey.forecast'}",
        "forecast": f"{request.num_frames} frames from frame {request.start} on are known; predicted {kind}",
        "model_weights": f"{weights_fingerprint(model)}, {model.num_parameters()} parameters",
        "model_network": f"{config.num_blocks} blocks of {config.scheme} attention, {config.num_heads} heads, "
        f"{config.width} wide",
        "model_training": f"trained on {leads}",
        "model_fields": ", ".join(config.fields),
    }
    return {**facts, **({"model_card": trained.card} if trained.card else {})}
