"""The configuration that a user writes: the run YAML, the DeepSpeed JSON, and descriptions of data."""

from matey.config.choices import Part
from matey.config.description import DataDescription
from matey.config.loading import (
    ConfigError,
    dump_config,
    load_config,
    load_deepspeed_config,
    parse_config,
    read_yaml,
    with_overrides,
)
from matey.config.schema import (
    CheckpointBlocks,
    CoarsenedSection,
    DataSection,
    DataSet,
    FinetuneSection,
    GroupSection,
    ModelSection,
    OutputSection,
    ParallelSection,
    RunConfig,
    TokenSet,
    TokensSection,
    TrainSection,
)

__all__ = [
    "CheckpointBlocks",
    "CoarsenedSection",
    "ConfigError",
    "DataDescription",
    "DataSection",
    "DataSet",
    "FinetuneSection",
    "GroupSection",
    "ModelSection",
    "OutputSection",
    "ParallelSection",
    "Part",
    "RunConfig",
    "TokenSet",
    "TokensSection",
    "TrainSection",
    "dump_config",
    "load_config",
    "load_deepspeed_config",
    "parse_config",
    "read_yaml",
    "with_overrides",
]
