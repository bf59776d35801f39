"""Says what each key of the run YAML is, from its schema: for `matey configs explain` and for docs/reference/settings.md."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from matey.config.loading import ConfigError, hint, section_inside
from matey.config.schema import BACKENDS, CRITERIA, FINETUNE_MODES, LOSSES, SCHEMES, RunConfig
from matey.config.section import Section

REGISTRIES = (SCHEMES, BACKENDS, CRITERIA, LOSSES, FINETUNE_MODES)
TYPES = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "none"}
BOUNDS = {Gt: "above", Ge: "at least", Lt: "below", Le: "at most"}
LARGE = 10**6
"""Bounds from here on only refuse slips of the keyboard, and are not said."""


@dataclass(frozen=True)
class Key:
    """What there is to say of a key, in words."""

    path: str
    type: str
    default: str
    unit: str
    meaning: str


def explain(name: str) -> str:
    """Return what is said of a key, such as ``tokens.refine``, or of all keys of a section, such as ``tokens``.

    Raises:
        ConfigError: there is no such key.
    """
    known = sections()
    if not name:
        return "\n".join(f"{path:34}{about(section)}" for path, section in known.items())
    if name in known:
        return "\n\n".join([f"{name}: {about(known[name])}", *(block(key) for key in keys(name, known[name]))])
    section, _, own = name.rpartition(".")
    for key in keys(section, known.get(section, RunConfig)):
        if key.path == name:
            return block(key)
    raise ConfigError(
        f"There is no key {name[:80]!r}.{hint(name.split('.'))} `matey configs explain` lists the sections."
    )


def block(key: Key) -> str:
    """Return a key and what is said of it, on a few lines."""
    return f"{key.path}\n  {key.meaning}\n  type: {key.type}; default: {key.default}; unit: {key.unit}"


def sections(section: type[Section] = RunConfig, above: str = "") -> dict[str, type[Section]]:
    """Return all sections below one by their paths, such as ``data.sets``; a section that lies in a list counts once."""
    found: dict[str, type[Section]] = {}
    for name, field in section.model_fields.items():
        if inside := section_inside(field.annotation):
            found |= {f"{above}{name}": inside} | sections(inside, f"{above}{name}.")
    return found


def about(section: type[Section]) -> str:
    """Return the sentence that a section is described by."""
    return " ".join(inspect.cleandoc(section.__doc__ or "").split("\n\n")[0].split())


def keys(path: str, section: type[Section]) -> list[Key]:
    """Return the keys of a section at a path, in their order; a description ends in its unit: "time to wait [s]"."""
    found = []
    for name, field in section.model_fields.items():
        meaning, _, unit = " ".join((field.description or "").split()).removesuffix("]").partition(" [")
        value = field.get_default(call_default_factory=True)
        if isinstance(value, Section):
            default = "the defaults of its keys"
        else:
            default = "required" if field.is_required() else json.dumps(value, default=list).replace('"', "")
        type_ = " ".join([_type(field.annotation), *_bounds(field.metadata)]).replace("text : ", "")
        found.append(Key(f"{path}.{name}".lstrip("."), type_, default.replace("null", "none"), unit or "none", meaning))
    return found


def _bounds(metadata: Iterable[Any]) -> Iterator[str]:
    """Yield the names that a registry has, and the bounds of a number."""
    flat = [inner for each in metadata for inner in (each.metadata if isinstance(each, FieldInfo) else [each])]
    bounds = {BOUNDS[type(each)]: getattr(each, type(each).__name__.lower()) for each in flat if type(each) in BOUNDS}
    for registry in REGISTRIES:
        if any(getattr(each, "func", None) == registry.check for each in flat):
            yield f": {', '.join(registry.own)}, or one of a package"
    if said := [f"{word} {bound:,.15g}" for word, bound in bounds.items() if abs(bound) < LARGE]:
        yield " and ".join(said)


def _type(annotation: Any) -> str:  # noqa: ANN401 (any type of the schema)
    """Return the words for a type."""
    origin, args = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return " ".join([_type(annotation.__origin__), *_bounds(annotation.__metadata__)])
    if origin in (dict, tuple, list):
        inside = " or ".join(dict.fromkeys(_type(arg) for arg in args[origin is dict :] if arg is not Ellipsis))
        return f"{'names, each with' if origin is dict else 'list of'} {inside}"
    if origin is Literal:
        return ", ".join(args)
    if args:
        return " or ".join(word for word in dict.fromkeys(map(_type, args)) if word != "none")
    return "section" if issubclass(annotation, Section) else TYPES[annotation]
