"""Copies weights of a trained model into one with different fields, patches or levels; weights that do not fit stay new."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from matey.mistakes import nearest_name
from matey.model.configuration import MateyConfig
from matey.model.embedding import PatchEmbedding
from matey.model.matey import MateyModel
from matey.model.parts import CELL_OUTPUTS, FIELD_ROWS
from matey.tokens.neighbours import places_around
from matey.tokens.patches import AXES, Patch, long_axes


@dataclass(frozen=True)
class Transfer:
    """Weights that were copied from one model into another.

    Attributes:
        reused: name of each parameter mapped to the number of its values that come from the other model.
        sentences: sentences on the parts that are new.
    """

    reused: Mapping[str, int]
    sentences: tuple[str, ...]


@torch.no_grad()
def transfer(
    source: MateyModel,
    target: MateyModel,
    new_rows: Mapping[str, str],
    *,
    cells: Literal["pretrained", "features", "new"] = "pretrained",
) -> Transfer:
    """Copy the weights of ``source`` that fit into ``target``; rows of fields are matched by name.

    Args:
        source: a trained model.
        target: a model with initial weights, which stay where nothing fits.
        new_rows: initial row of each field that only the target has: ``zero``, ``mean`` of the source's rows, or
            ``copy:FIELD``.
        cells: weights that the network on the cells takes: all that fit, all but those that make changes of fields, or none.

    Raises:
        ValueError: the blocks or the predicted quantities differ, or a row is to be copied from a field that the source lacks.
    """
    check_blocks(source.config, target.config)
    reused: dict[str, int] = {}
    sentences = _about_fields(source.config, target.config, new_rows)
    for module in ("position", "lead_time", "norm"):
        _copy_module(getattr(source, module), getattr(target, module), module, reused)
    for module in ("blocks", "maps_before", "maps_after"):
        _copy_with_places(source, target, module, reused)
    rows = _Rows(source.config.fields, target.config.fields, new_rows)
    for level, patch in enumerate(target.config.patches if target.config.has_tokens else ()):
        _copy_embedding(source, target, level, rows, reused)
        if target.config.has_cells:
            _copy_exchange(source, target, level, reused)
        else:
            _copy_decoder(source, target, level, rows, reused)
        if patch not in source.config.patches:
            sentences.append(_about_level(target, level, reused))
        elif target.config.has_cells and not any(name.startswith(f"giving.{level}.") for name in reused):
            sentences.append(
                f"What level {list(patch)} gives the cells is new, of another shape than the pretrained model's: it adds "
                "nothing at first. Its shape follows from the finest patch and from model.channels."
            )
    sentences += _copy_beside(source, target, "conditions", rows, reused)
    for part in ("cells_before", "cells_after") if cells != "new" else ():
        sentences += _copy_beside(source, target, part, rows, reused)
    if cells == "new" and target.config.has_cells:
        sentences.append("The network on the cells starts anew, as finetune.cells asks.")
    if cells == "features" and any(name.startswith("cells_") for name in reused):
        sentences.append("The cells predict no change at first; what is found in the fields is as pretrained.")
        for name, parameter in target.named_parameters():
            # The response to scales and lead times is wrong for other scales and lead times.
            if name in CELL_OUTPUTS or (name.startswith("cells_") and ".modulate.weight" in name):
                parameter.zero_()
                del reused[name]
    sentences += _copy_told(source, target, reused)
    unused = [list(patch) for patch in source.config.patches if patch not in target.config.patches]
    if unused:
        sentences.append(f"Levels of the pretrained model without a place: {', '.join(map(str, unused))}.")
    if source.config.history != target.config.history:
        sentences.append(
            f"The history has {target.config.history} frames instead of {source.config.history}; no weight depends on it."
        )
    return Transfer(reused, tuple(sentences))


def check_blocks(source: MateyConfig, target: MateyConfig) -> None:
    """Raise ValueError unless both models have the same blocks and predict the same quantity."""
    names = {"scheme": "scheme", "num_heads": "heads", "width": "width", "num_blocks": "blocks"}
    names |= {"rotary": "rotary", "predict": "predict", "network": "network"}
    if target.mixes_neighbours:
        names["maps"] = "maps of neighbours"
    for key, name in names.items():
        has, wants = getattr(source, key), getattr(target, key)
        if has != wants:
            raise ValueError(
                f"The pretrained model has {name} {has}, the run asks for {wants}, for which its weights have no meaning; "
                "leave model.size, model.scheme, model.rotary and model.predict out of the run YAML, or start from 'none'."
            )
    has, wants = (_axes(config.patches) for config in (source, target))
    if (source.scheme == "avit" or source.rotary) and has != wants:
        raise ValueError(
            f"The pretrained model attends along {has}, patches {[list(p) for p in target.patches]} ask for attention "
            f"along {wants}; keep patches to those axes, or pretrain with scheme vit or svit and without model.rotary."
        )


def _axes(patches: Sequence[Patch]) -> str:
    return " ".join(AXES[axis] for axis in long_axes(patches))


class _Rows:
    """The origin of each row of the target's vocabulary."""

    def __init__(self, source: list[str], target: list[str], new_rows: Mapping[str, str]) -> None:
        self._source, self._target, self._new_rows = source, target, new_rows

    def copy(self, old: Tensor, new: Tensor) -> int:
        """Fill ``new`` from ``old``, both ``(f, ...)``; return how many of its values are rows of known fields."""
        known = 0
        for row, name in enumerate(self._target):
            if name in self._source:
                new[row] = old[self._source.index(name)]
                known += new[row].numel()
            elif self._new_rows[name] == "zero":
                new[row] = 0
            elif self._new_rows[name] == "mean":
                new[row] = old.mean(dim=0)
            else:
                new[row] = old[self._source.index(self._new_rows[name].removeprefix("copy:"))]
        return known


def _copy_module(source: nn.Module, target: nn.Module, prefix: str, reused: dict[str, int]) -> None:
    target.load_state_dict(source.state_dict())
    reused |= {f"{prefix}.{name}": value.numel() for name, value in target.named_parameters()}


def _copy_with_places(source: MateyModel, target: MateyModel, part: str, reused: dict[str, int]) -> None:
    """Copy modules in which tokens meet their neighbours: of a plane's, those in space have the same in the plane."""
    places, of_target = (places_around(model.config.patches) for model in (source, target))
    new = getattr(target, part)
    for name, old in getattr(source, part).named_parameters():
        parameter = new.get_parameter(name)
        if old.shape == parameter.shape:
            parameter.copy_(old)
        else:
            parameter.zero_()
            width = target.config.width
            there = parameter.view(-1, len(of_target), width)
            for place, values in zip(places, old.view(-1, len(places), width).unbind(1), strict=True):
                if place in of_target:
                    there[:, of_target.index(place)] = values
        reused[f"{part}.{name}"] = old.numel()


def _copy_embedding(source: MateyModel, target: MateyModel, level: int, rows: _Rows, reused: dict[str, int]) -> None:
    """Copy the first stages, as far as the source's level that is nearest in size has them in common with this one."""
    new, prefix = target.embeddings[level], f"embeddings.{level}"
    old = min(source.embeddings, key=lambda other: (other.patch != new.patch, _distance(other.patch, new.patch)))
    if old.cells != new.cells:
        return
    reused[f"{prefix}.field_weight"] = rows.copy(old.field_weight, new.field_weight)
    new.field_bias.copy_(old.field_bias)
    reused[f"{prefix}.field_bias"] = new.field_bias.numel()
    for number in range(_common_stages(old, new)):
        _copy_module(old.stages[number], new.stages[number], f"{prefix}.stages.{number}", reused)


def _common_stages(old: PatchEmbedding, new: PatchEmbedding) -> int:
    count = 0
    for merges, stages in zip(
        zip(old.merges, new.merges, strict=False), zip(old.stages, new.stages, strict=False), strict=True
    ):
        if merges[0] != merges[1] or stages[0].weight.shape != stages[1].weight.shape:
            break
        count += 1
    return count


def _copy_decoder(source: MateyModel, target: MateyModel, level: int, rows: _Rows, reused: dict[str, int]) -> None:
    """Copy the decoder of the same patch in space, if there is one; a partly copied decoder would output noise."""
    new, prefix = target.decoders[level], f"decoders.{level}"
    old = next((other for other in source.decoders if other.patch == new.patch), None)
    if old is None:
        return
    _copy_module(old.stages, new.stages, f"{prefix}.stages", reused)
    for name in FIELD_ROWS["decoders"]:
        reused[f"{prefix}.{name}"] = rows.copy(getattr(old, name), getattr(new, name))


def _copy_exchange(source: MateyModel, target: MateyModel, level: int, reused: dict[str, int]) -> None:
    """Copy what a level's tokens take from cells and give to them, if the source has such patches and grains."""
    for part in ("taking", "giving"):
        new = getattr(target, part)[level]
        for patch, old in zip(source.config.patches, getattr(source, part), strict=True):
            shapes = [{name: p.shape for name, p in module.named_parameters()} for module in (old, new)]
            if patch[1:] == target.config.patches[level][1:] and shapes[0] == shapes[1]:
                _copy_module(old, new, f"{part}.{level}", reused)


def _copy_beside(source: MateyModel, target: MateyModel, part: str, rows: _Rows, reused: dict[str, int]) -> list[str]:
    """Copy a part beside the tokens if both models have it in the same shape; return a sentence if it is new."""
    old, new = getattr(source, part), getattr(target, part)
    # Rows of fields may differ; all other shapes must be equal.
    shapes = [
        {name: p.shape[name.split(".")[-1] in FIELD_ROWS[part] :] for name, p in module.named_parameters()}
        if module
        else {}
        for module in (old, new)
    ]
    if shapes[0] != shapes[1]:
        if new is None:
            return []
        if "cells" in part and _axes(source.config.patches) != _axes(target.config.patches):
            return [
                f"Part {part!r} is new, since the pretrained model has no cells along {_axes(target.config.patches)}: what it "
                "learnt of changes within a few cells is lost, and has to be trained as without pretraining."
            ]
        return [
            f"Part {part!r} is new, of another shape than the pretrained model's, if that has one: it is trained anew."
        ]
    for name, parameter in new.named_parameters() if new is not None else ():
        key = f"{part}.{name}"
        if name.split(".")[-1] in FIELD_ROWS[part]:
            reused[key] = rows.copy(old.get_parameter(name), parameter)
        else:
            parameter.copy_(old.get_parameter(name))
            reused[key] = parameter.numel()
    return []


def _copy_told(source: MateyModel, target: MateyModel, reused: dict[str, int]) -> list[str]:
    """Copy the embedding of parameters; new parameters add nothing at first."""
    known, names = source.config.parameters, target.config.parameters
    if source.told is not None and target.told is not None:
        _copy_module(source.told.contract, target.told.contract, "told.contract", reused)
        rows = _Rows(known, names, dict.fromkeys(names, "zero"))
        reused["told.parameter_weight"] = rows.copy(source.told.parameter_weight, target.told.parameter_weight)
    new = [name for name in names if name not in known]
    return [f"New parameters: {', '.join(new)}; they change no forecast before they are trained."] if new else []


def _distance(one: Patch, other: Patch) -> float:
    """Return the difference in size of two patches, in halvings, summed over all axes."""
    ratios = torch.tensor(one).log2() - torch.tensor(other).log2()
    return ratios.abs().sum().item()


def _about_fields(source: MateyConfig, target: MateyConfig, new_rows: Mapping[str, str]) -> list[str]:
    known = [name for name in target.fields if name in source.fields]
    new = [name for name in target.fields if name not in source.fields]
    for name in new:
        kind, _, model = new_rows[name].partition(":")
        if kind == "copy" and model not in source.fields:
            raise ValueError(
                f"The rows of {name!r} are to be a copy of {model!r}, which the pretrained model lacks; it has "
                f"{', '.join(source.fields)}.{nearest_name(model, source.fields)}"
            )
    sentences = [f"Known fields keep their rows: {', '.join(known)}."]
    if new:
        sentences.append(f"New fields: {', '.join(f'{name} ({new_rows[name]})' for name in new)}.")
    return sentences


def _about_level(target: MateyModel, level: int, reused: Mapping[str, int]) -> str:
    taken = []
    for name in ("embeddings", "taking", "giving") if len(target.giving) else ("embeddings", "decoders"):
        total = sum(p.numel() for p in getattr(target, name)[level].parameters())
        count = sum(number for key, number in reused.items() if key.startswith(f"{name}.{level}."))
        taken.append(f"{count:,} of {total:,} weights of its {name.removesuffix('s').replace('ings', 'ing')}")
    return f"Level {list(target.config.patches[level])} is new: {' and '.join(taken)} are reused."


def weights_fingerprint(model: nn.Module) -> str:
    """Return a hash of all weights."""
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]
