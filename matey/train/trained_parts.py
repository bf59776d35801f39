"""The table that says which parts of a network are taken over and trained."""

from __future__ import annotations

from typing import get_args

from matey.config import Part
from matey.model.lora import is_adapter
from matey.model.matey import MateyModel
from matey.model.parts import part_of
from matey.model.transfer import Transfer
from matey.text_table import text_table


def parts_table(model: MateyModel, transferred: Transfer | None) -> str:
    """Return a table of parameter counts by part: all, those taken over from a pretrained model, and those trained.

    Args:
        model: the model, with frozen parameters as in training, before an engine divides it.
        transferred: the weights that the model took over; None for random weights.
    """
    counts: dict[str, list[int]] = {part: [0, 0, 0] for part in get_args(Part)}
    for name, parameter in model.named_parameters():
        plain = name.replace(".base_layer.", ".")
        counted = counts.setdefault("adapters", [0, 0, 0]) if is_adapter(name) else counts[part_of(name)]
        counted[0] += parameter.numel()
        counted[1] += 0 if transferred is None else transferred.reused.get(plain, 0)
        counted[2] += parameter.numel() if parameter.requires_grad else 0
    counts["all"] = [sum(column) for column in zip(*counts.values(), strict=True)]
    rows = [
        (part, *(f"{count:,}" for count in (number, reused, number - reused, trained)))
        for part, (number, reused, trained) in counts.items()
    ]
    lines = text_table(("parameters", "all", "reused", "new", "trained"), rows).splitlines()
    lines.insert(-1, lines[1])
    return "\n".join(lines)
