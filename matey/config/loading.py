"""Finds and reads the run YAML, the DeepSpeed JSON and other such texts, with error messages for their author.

An unknown key is met with a guess: a wrong section or a wrong spelling. Of the DeepSpeed JSON, the keys at its root are
checked: DeepSpeed itself ignores those that it does not know, and ends in a traceback where a number stands in the place of a
section.

    a checkout                          as installed from a wheel, see setup.py
    launch/ tools/ ds_configs/ models/  matey/shipped/launch/ tools/ ds_configs/ models/

A configuration is named after its file: ``demo`` is launch/runs/demo.yaml, ``zero1`` is ds_configs/zero1.json.

Text is in UTF-8, of moderate size and depth, made of plain values. YAML that a parser accepts but that can break a program is
refused: aliases, which can expand to more than any memory holds, merges, tags, and keys that come twice.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import reprlib
from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml
from pydantic import ValidationError

from matey.config.schema import DataSet, RunConfig
from matey.config.section import Section
from matey.mistakes import Mistake, nearest_name, one_line
from matey.registry import RegistryError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


MAX_BYTES = 4 * 2**20
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's parser, where PyYAML was built with it


class PlainTextError(ValueError):
    """A text that is not plain YAML or JSON; the message is a clause to put after the name of the file."""


def read_text(path: Path) -> str:
    """Return a file's text.

    Raises:
        PlainTextError: the file is not UTF-8, or larger than any configuration.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:  # only so many bytes: it may be a device, or a checkpoint instead of its YAML
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise PlainTextError(f"is larger than {MAX_BYTES // 2**20} MiB, which no configuration is; give another file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PlainTextError(f"is not text in UTF-8 (byte {error.start}); save it in that encoding") from None


def parse_yaml(text: str) -> Any:  # noqa: ANN401
    """Return the value of a text in YAML.

    Raises:
        PlainTextError: the text is not YAML, or not plain.
    """
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.AliasEvent):  # which can expand to more than any memory holds
                raise PlainTextError(f"uses the alias *{event.anchor}; write out what it stands for")
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            _check_keys(node)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except PlainTextError:
        raise
    # Python itself refuses a date such as 2020-13-45, or an integer of thousands of digits.
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        raise PlainTextError(f"is not YAML: {one_line(error)}") from None


def _check_keys(node: yaml.Node | None) -> None:
    """Raise PlainTextError if a mapping has a key twice, of which YAML would take the last one silently."""
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise PlainTextError(
                        f"has the key {key.value!r} twice (line {key.start_mark.line + 1}); remove one"
                    )
                names.add(key.value)
    for part in node.value if isinstance(node, yaml.CollectionNode) else ():
        for each in part if isinstance(part, tuple) else (part,):
            _check_keys(each)


def parse_json(text: str) -> Any:  # noqa: ANN401
    """Return the value of a text in JSON.

    Raises:
        PlainTextError: the text is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PlainTextError(f"is not JSON: {one_line(error)}") from None


_PACKAGE = Path(__file__).resolve().parents[1]
FOLDERS = ("launch", "tools", "ds_configs", "models")
KINDS = {"launch/runs": ".yaml", "ds_configs": ".json"}
"""Folders of configurations, of runs and of DeepSpeed's engine, and the suffix of their files."""


def is_installed() -> bool:
    """Whether the package was installed from a wheel, and is not in a checkout."""
    return (_PACKAGE / "shipped").is_dir()


ROOT = _PACKAGE / "shipped" if is_installed() else _PACKAGE.parent
"""The folder that holds `FOLDERS`: the repository's root in a checkout."""


def configurations(folder: str) -> dict[str, Path]:
    """Return the configurations of a kind by name, see `KINDS`."""
    return {path.stem: path for path in sorted((ROOT / folder).glob(f"*{KINDS[folder]}"))}


def find_shipped(path: str | Path) -> Path:
    """Return a path if it exists, else the file or folder of that name that comes with the program, else the path.

    Args:
        path: a path; or a name, such as ``demo`` or ``zero1.json``; or a path from the root of the repository, such as
            ``launch/runs/demo.yaml`` or ``models/matey-micro``.
    """
    path = Path(path)
    # For names that are too long or hold null bytes, os.path returns False where pathlib raises.
    if path.is_absolute() or os.path.exists(path) or ".." in path.parts or not path.parts:
        return path
    if path.parts[0] in FOLDERS and os.path.exists(ROOT / path):
        return ROOT / path
    if len(path.parts) == 1:
        for folder, suffix in KINDS.items():
            found = ROOT / folder / f"{path.name.removesuffix(suffix)}{suffix}"
            if os.path.isfile(found):
                return found
        if os.path.isdir(ROOT / "models" / path):
            return ROOT / "models" / path
    return path


def hint_of_file(path: str | Path) -> str:
    """Return `` Did you mean 'x'?`` if a missing path resembles the name of a configuration that comes with the program."""
    name = Path(path)
    if len(name.parts) != 1 and name.parent.as_posix() not in KINDS:
        return ""
    return nearest_name(name.stem, [known for folder in KINDS for known in configurations(folder)])


SECTIONS = (
    "zero_optimization bf16 fp16 torch_autocast tensorboard wandb comet csv_monitor flops_profiler comms_logger "
    "data_efficiency data_types aio checkpoint compile timers"
).split()
"""The sections at the root of the DeepSpeed JSON."""
VALUES = (
    "prescale_gradients sparse_gradients zero_allow_untested_optimizer zero_force_ds_cpu_optimizer wall_clock_breakdown "
    "memory_breakdown dump_state graph_harvesting load_universal_checkpoint use_node_local_storage disable_allgather "
    "communication_data_type seq_parallel_communication_data_type gradient_predivide_factor"
).split()
"""The flags and numbers there."""

# The run YAML owns these numbers and passes them to DeepSpeed; in the JSON as well, they would have two owners.
OWNED_BY_RUN = {
    "train_batch_size": "train.micro_batch and train.accumulation",
    "train_micro_batch_size_per_gpu": "train.micro_batch",
    "gradient_accumulation_steps": "train.accumulation",
    "gradient_clipping": "train.clip_norm",
    "optimizer": "train.optimizer, train.learning_rate, train.betas and train.weight_decay",
    "scheduler": "train.schedule and train.warmup_steps",
    "steps_per_print": "train.log_every",
}

_MAX_NAMED = 5
_IN_YAML = {
    "tuple_type": "expected a list, such as [a, b]",
    "dict_type": "expected keys with values, such as {a: 1}",
    "model_type": "expected keys with values, such as {a: 1}",
}
# Pydantic's names for the forms of a value, which stand among the keys in the location of an error.
_FORM = re.compile(
    r"(function-\w+|constrained-\w+|nullable|tuple|list|dict|literal)(\[.*\])?|[a-z]+\[.*\]|int|float|str|bool"
)
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


class ConfigError(Mistake):
    """A mistake in the run YAML, in ``--set`` or in the DeepSpeed JSON: one sentence that says what to do."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run YAML and apply ``--set`` overrides such as ``train.steps=200``; values are read as YAML.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown, or a value is out of range.
    """
    return parse_config(with_overrides(read_yaml(path), overrides), str(path), overrides)


def with_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a tree of sections with overrides such as ``train.steps=200`` applied; values are read as YAML.

    Raises:
        ConfigError: an override is not key=value, or its key continues below a value.
    """
    tree = deepcopy(tree)
    for override in overrides:
        _apply(tree, override)
    return tree


def parse_config(tree: dict[str, Any], source: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Validate a tree of sections, with overrides applied already; errors name its ``source``, and ``--set`` with them."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{source}{' with --set' if overrides else ''}: {sentences(error)}") from None


def dump_config(config: RunConfig) -> str:
    """Return the YAML of a resolved configuration; `load_config` of it gives an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def source_of(run: RunConfig) -> str | None:
    """Return the run or model that a run which fine-tunes starts from; None for random weights.

    Raises:
        ConfigError: no source is named, or random weights are asked for without the settings of the network.
    """
    if run.finetune is None or run.finetune.pretrained is None:
        raise ConfigError(
            "Name the run or model to start from: --pretrained RUN_OR_MODEL, or --pretrained none for random weights "
            "(finetune.pretrained in the run YAML)."
        )
    if run.finetune.pretrained != "none":
        return run.finetune.pretrained
    stated = {"model": run.model.model_fields_set, "tokens": run.tokens.model_fields_set}
    for section, key in (("model", "size"), ("model", "scheme"), ("tokens", "set"), ("tokens", "patches")):
        if key not in stated[section]:
            raise ConfigError(
                "With --pretrained none there is no model to take the network from: the run YAML has to state "
                f"{section}.{key}; the config.yaml of a run from a pretrained model states all, its vocabulary too."
            )
    return None


def load_deepspeed_config(path: str | Path) -> dict[str, Any]:
    """Read a DeepSpeed JSON, which owns ZeRO, precision, offload, communication and monitors.

    Raises:
        ConfigError: the file is missing or not JSON, a key is unknown, or a key belongs to the run YAML.
    """
    tree = _read(path, parse_json, "the DeepSpeed configuration")
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a JSON object, got {type(tree).__name__}.")
    for key, value in tree.items():
        if key in OWNED_BY_RUN:
            raise ConfigError(f"{path}: {key!r} is set in the run YAML ({OWNED_BY_RUN[key]}); remove it from the JSON.")
        if key not in (*SECTIONS, *VALUES):
            known = nearest_name(key[:80], (*SECTIONS, *VALUES))
            raise ConfigError(f"{path}: DeepSpeed has no key {shortened(key)}.{known}")
        if (key in SECTIONS) != isinstance(value, dict):
            expected = f"expected {'keys with values' if key in SECTIONS else 'a value'}"
            raise ConfigError(f"{path}: {key}: {expected} (got {shortened(value)})")
    return tree


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping."""
    tree = _read(path, parse_yaml, "the configuration")
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold sections such as 'data:' and 'train:', got {type(tree).__name__}.")
    return tree


def _read(path: str | Path, parse: Callable[[str], Any], what: str) -> Any:  # noqa: ANN401
    try:
        return parse(read_text(find_shipped(path)))
    except OSError as error:
        raise ConfigError(f"Cannot read {what} {path}: {error.strerror}.{hint_of_file(path)}") from None
    except ValueError as error:  # not plain text, or a path with a null byte in it
        raise ConfigError(f"{path} {error}.") from None


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set takes key=value such as train.steps=200, got {override!r}.")
    *parents, name = key.split(".")
    for parent in parents:
        inside = tree.setdefault(parent, {})
        if not isinstance(inside, dict):
            raise ConfigError(
                f"--set {override}: {parent!r} is no section; a list is set as a whole, such as "
                "--set 'data.sets=[{path: data/les, split_by: time}]'."
            )
        tree = inside
    try:
        tree[name] = parse_yaml(value)
    except PlainTextError as error:
        raise ConfigError(f"--set {key}: {shortened(value)} {error}.") from None


def sentences(error: ValidationError, section: type[Section] = RunConfig) -> str:
    """Return the mistakes in a tree of values for a section, a clause for each of the first few."""
    clauses = [_sentence(each, section) for each in _of_likeliest_forms(error.errors(include_url=False))]
    more = f"; and {len(clauses) - _MAX_NAMED} more" if len(clauses) > _MAX_NAMED else ""
    return "; ".join(clauses[:_MAX_NAMED]) + more


def shortened(value: object) -> str:
    """Return the text of a value for a message; long texts and items are cut."""
    return _SHORT.repr(value)


def _of_likeliest_forms(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Keep, for a value that may have several forms, the errors of the form that is nearest to it.

    The error that a list is too short is dropped if its items have errors themselves.
    """
    found: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    inside = {error["loc"][:depth] for error in errors for depth in range(len(error["loc"]))}
    for error in errors:
        if error["type"] == "too_short" and error["loc"] in inside:
            continue
        keys = tuple(takewhile(lambda part: not _FORM.fullmatch(str(part)), error["loc"]))
        found.setdefault(keys, []).append(error)
    kept = []
    for keys, alike in found.items():
        if all(error["loc"] == keys for error in alike):
            kept += alike
            continue
        deepest = max(len(error["loc"]) for error in alike)
        near = [error for error in alike if len(error["loc"]) == deepest]
        told = [error for error in near if not error["type"].endswith("_type")] or near
        kept += [{**error, "loc": tuple(p for p in error["loc"] if not _FORM.fullmatch(str(p)))} for error in told]
    return kept


def _sentence(error: ErrorDetails, root: type[Section]) -> str:
    """Turn one pydantic error into a sentence; an unknown key names the nearest known one."""
    where = ".".join(str(part)[:80] for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown key {where!r}.{hint(error['loc'], root)}"
    if error["type"] == "missing":
        return f"{where!r} is required"
    message = _IN_YAML.get(error["type"], error["msg"].removeprefix("Value error, "))
    if not where or isinstance(error.get("ctx", {}).get("error"), RegistryError):
        return f"{where}: {message}" if where else message
    return f"{where}: {message} (got {shortened(error['input'])})"


DEEPSPEED_KEYS = frozenset("zero zero_stage zero_optimization bf16 fp16 amp dtype precision offload".split())


def hint(location: Sequence[str | int], root: type[Section] = RunConfig) -> str:
    """Return ``" Did you mean 'train.steps'?"`` for an unknown key, or ``""`` if no key is like it.

    Args:
        location: the place of the key, as pydantic gives it.
        root: the section that the whole file is.
    """
    *parents, last = location
    name = str(last)[:80]
    own = {key: ".".join(map(str, [*parents, key])) for key in section_at(parents, root).model_fields}
    if root is RunConfig and name.lower() in DEEPSPEED_KEYS:
        return " That is DeepSpeed's: set it in the JSON of --deepspeed_config."
    known = {key: f"data.sets.{key}" for key in DataSet.model_fields}
    for section in RunConfig.model_fields:
        known |= {key: f"{section}.{key}" for key in section_at([section]).model_fields}
    elsewhere = root is RunConfig and known.get(name.lower())
    near = [] if elsewhere else difflib.get_close_matches(name, own, n=1, cutoff=0.5)
    meant = elsewhere or (own[near[0]] if near else "")
    in_list, _, inside = meant.rpartition(".")
    example = f" It belongs to a data set: data.sets=[{{path: ..., {inside}: ...}}]." if in_list == "data.sets" else ""
    return f" Did you mean {meant!r}?{example}" if meant else ""


def section_at(location: Sequence[str | int], section: type[Section] = RunConfig) -> type[Section]:
    """Return the section that a pydantic location leads to; indices and keys of mappings on the way are skipped."""
    for part in location:
        if isinstance(part, str) and part in section.model_fields:
            section = section_inside(section.model_fields[part].annotation) or section
    return section


def section_inside(annotation: Any) -> type[Section] | None:  # noqa: ANN401 (any type of the schema)
    """Return the section that a type is, or that lies in its list, in its mapping or among its forms."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(section_inside, get_args(annotation))), None)
