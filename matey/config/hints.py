"""Guesses which key is meant by an unknown one of the run YAML: another code's name, a wrong section or a wrong spelling."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from matey.config.description import DataDescription
from matey.config.places import FieldSource
from matey.config.schema import DataSet, FinetuneSection, GroupSection, RunConfig
from matey.config.section import Section

# Names of a setting in other codes and in this project's own `MateyConfig`.
_OTHER_NAMES = {
    "train": "training trainer",
    "train.optimizer": "optim opt",
    "train.learning_rate": "lr max_lr peak_lr base_lr",
    "train.final_learning_rate": "min_lr final_lr",
    "train.schedule": "scheduler lr_scheduler lr_schedule",
    "train.warmup_steps": "warmup warmup_iters",
    "train.micro_batch": "batch batch_size micro_batch_size train_batch_size per_device_train_batch_size bs",
    "train.accumulation": "grad_accum gradient_accumulation gradient_accumulation_steps accumulate_grad_batches accum_iter",
    "train.steps": "max_steps num_steps iterations iters max_iters epochs num_epochs max_epochs num_train_epochs",
    "train.clip_norm": "grad_clip clip clip_grad gradient_clipping max_grad_norm",
    "train.weight_decay": "wd",
    "train.betas": "beta1 beta2 adam_betas",
    "train.ema": "ema_decay",
    "train.patience": "early_stopping",
    "train.seed": "random_seed",
    "train.unroll": "unroll_steps pushforward push_forward",
    "train.checkpoint_every": "save_every save_steps save_interval checkpoint_interval ckpt_every",
    "train.validate_every": "eval_every eval_steps eval_interval val_every val_interval",
    "train.log_every": "log_interval logging_steps print_every",
    "tokens.set": "token_set tokenizer",
    "tokens.patches": "patch patch_size patch_sizes",
    "tokens.rule": "refine_rule",
    "tokens.refine": "refine_amount gamma threshold refine_threshold",
    "tokens.values": "refine_values",
    "tokens.change": "refine_change",
    "model.size": "width embed_dim hidden_size num_heads num_layers num_blocks depth",
    "model.scheme": "attention_type attention_scheme",
    "model.drop_path": "dropout drop_path_rate stochastic_depth",
    "data.sets": "path paths data_path dataset datasets",
    "data.history": "num_frames n_steps history_length context context_length",
    "data.lead_max": "lead lead_time max_lead horizon",
    "data.split": "train_split val_split valid_split",
    "data.workers": "num_workers",
    "parallel.sequence_parallel_size": "sequence_parallel sp sp_size",
    "parallel.checkpoint_blocks": "activation_checkpointing gradient_checkpointing",
    "parallel.threads": "num_threads",
    "output.dir": "output_dir out_dir save_dir run_dir log_dir exp_dir out",
    "output.resume": "resume_from_checkpoint",
    "finetune.pretrained": "pretrained_model init_from checkpoint",
    "finetune.lora_rank": "lora_r rank",
}
ALIASES = {alias: key for key, aliases in _OTHER_NAMES.items() for alias in aliases.split()}
DEEPSPEED_KEYS = frozenset(
    "zero zero_stage zero_optimization bf16 fp16 amp dtype precision mixed_precision offload wandb tensorboard".split()
)

# Sections that lie in a list, in a mapping, or may be missing.
_INSIDE: dict[str, type[Section]] = {
    "sets": DataSet,
    "groups": GroupSection,
    "finetune": FinetuneSection,
    "description": DataDescription,
    "fields": FieldSource,
}
_ELSEWHERE = 0.75  # least likeness of a key of another section that is proposed
_HERE = 0.5  # the same for the section that holds the unknown key


def hint(location: Sequence[str | int], root: type[Section] = RunConfig) -> str:
    """Return ``" Did you mean 'train.steps'?"`` for an unknown key, or ``""`` if no key is like it.

    Args:
        location: the place of the key, as pydantic gives it.
        root: the section that the whole file is.
    """
    *parents, last = location
    name = str(last)[:80]
    own = {key: ".".join(map(str, [*parents, key])) for key in section_at(parents, root).model_fields}
    if root is not RunConfig:
        nearest = _nearest(name, own, _HERE)
        return f" Did you mean {own[nearest]!r}?" if nearest else ""
    others = {key: f"data.sets.{key}" for key in DataSet.model_fields} | {
        key: f"{section}.{key}" for section in RunConfig.model_fields for key in section_at([section]).model_fields
    }
    if meant := ALIASES.get(name.lower()) or others.get(name):
        return _proposal(own.get(meant.rpartition(".")[2], meant))
    if name.lower() in DEEPSPEED_KEYS:
        return " That is DeepSpeed's: set it in the JSON of --deepspeed_config."
    here, elsewhere = _nearest(name, own, _HERE), _nearest(name, others, _ELSEWHERE)
    if here and (not elsewhere or _likeness(name, here) >= _likeness(name, elsewhere)):
        return f" Did you mean {own[here]!r}?"
    return _proposal(others[elsewhere]) if elsewhere else ""


def _proposal(key: str) -> str:
    """Propose a key; for a key of a data set, which is an item of a list, show where it belongs."""
    in_list, _, inside = key.rpartition(".")
    example = f" It belongs to a data set: data.sets=[{{path: ..., {inside}: ...}}]." if in_list == "data.sets" else ""
    return f" Did you mean {key!r}?{example}"


def section_at(location: Sequence[str | int], section: type[Section] = RunConfig) -> type[Section]:
    """Return the section that a pydantic location leads to; indices and keys of mappings on the way are skipped."""
    for part in location:
        if isinstance(part, str) and part in section.model_fields:
            inside = _INSIDE.get(part) or section.model_fields[part].annotation
            if isinstance(inside, type) and issubclass(inside, Section):
                section = inside
    return section


def _nearest(name: str, known: Iterable[str], likeness: float) -> str:
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=likeness)), "")


def _likeness(name: str, other: str) -> float:
    return difflib.SequenceMatcher(None, name, other).ratio()
