"""Says what a checkpoint holds, and which of its files are missing, corrupt, or of another step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from matey.checkpoints.layouts import adam_step
from matey.checkpoints.newest import ShardError
from matey.checkpoints.run_files import CONFIG
from matey.checkpoints.shards import average_stretches, laid_out, open_shard
from matey.checkpoints.source import OPTIMIZER, Source
from matey.config import load_config


def describe(source: Source, run: Path | None) -> str:
    """Return the facts of a checkpoint, one per line."""
    with laid_out(source.folder):
        common, shapes = source.common, source.shapes
        versions = {"deepspeed": common["ds_version"], **common["versions"]}
        by_muon = sum(math.prod(shapes[name]) for name in source.by_muon)
        trained, num_frozen = sum(map(math.prod, shapes.values())), source.num_frozen
    stage = f"{common['zero_stage']}, now universal" if source.stage is None else source.stage
    facts = [
        ("checkpoint", str(source.folder)),
        ("step", f"{source.step}"),
        ("saved", f"by {source.num_ranks} ranks with ZeRO stage {stage}"),
        ("parameters", f"{trained:,} trained in {len(shapes)} tensors, {num_frozen:,} frozen"),
        ("optimizer", f"Muon on {by_muon:,} of these, AdamW on the others" if by_muon else "AdamW"),
        ("average", "moving average of the weights" if source.has_average else "none"),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        *(_of_run(run) if run else [("run", "none: the checkpoint does not lie in a run's checkpoints/")]),
    ]
    return "\n".join(f"{term:<12}{fact}" for term, fact in facts)


def find_damage(source: Source, files: Iterable[Path] | None = None) -> list[str]:
    """Read all files of a checkpoint, or some; return a sentence for each that is missing, corrupt or of another step."""
    return [sentence for path in (source.files() if files is None else files) for sentence in _damage_of(source, path)]


def _damage_of(source: Source, path: Path) -> Iterator[str]:
    try:
        if path.suffix == ".safetensors":
            step, stretches = average_stretches(path)
            with laid_out(path):
                for _ in stretches:
                    pass
            source.check_step(path, step)
            return
        shard = open_shard(path)
        # Opening only maps the tensors; damage to their bytes shows in the archive's checksums.
        with ZipFile(path) as archive:
            if wrong := archive.testzip():
                yield (
                    f"{path} is corrupt: the bytes of its record {wrong} do not match their checksum; copy it again, or take "
                    "an older checkpoint."
                )
                return
        with laid_out(path):
            if "optimizer_state_dict" in shard and path.name.endswith(OPTIMIZER):
                source.check_step(path, adam_step(shard["optimizer_state_dict"]))
            elif "global_steps" in shard:
                source.check_step(path, shard["global_steps"])
    except ShardError as error:
        yield str(error)
    except BadZipFile:
        yield f"{path} ({path.stat().st_size:,} bytes) is cut short or corrupt; copy it again, or take an older checkpoint."


def _of_run(run: Path) -> list[tuple[str, str]]:
    settings = load_config(run / CONFIG)
    model, tokens, data = settings.model, settings.tokens, settings.data
    return [
        ("run", str(run)),
        ("model", f"{model.size} {model.scheme}, {tokens.set} patches {[list(patch) for patch in tokens.patches]}"),
        ("fields", ", ".join(model.fields or ())),
        *(
            (term, ", ".join(names))
            for term, names in (("given", model.given), ("parameters", model.parameters))
            if names
        ),
        ("history", f"{data.history} frames, leads of 1 to {data.lead_max} snapshots"),
        ("data", ", ".join(entry.path for entry in data.sets)),
        ("sequence", f"groups of {settings.parallel.sequence_parallel_size} ranks share samples"),
    ]
