"""What a user writes: the run YAML and the DeepSpeed JSON."""

from matey.config.loading import (
    ConfigError,
    dump_config,
    load_config,
    load_deepspeed_config,
    load_resolved,
    parse_config,
    read_yaml,
    with_overrides,
)
from matey.config.schema import (
    DataSection,
    DataSet,
    FinetuneSection,
    GroupSection,
    ModelSection,
    OutputSection,
    ParallelSection,
    Part,
    RunConfig,
    TokensSection,
    TrainSection,
)

__all__ = [
    "ConfigError",
    "DataSection",
    "DataSet",
    "FinetuneSection",
    "GroupSection",
    "ModelSection",
    "OutputSection",
    "ParallelSection",
    "Part",
    "RunConfig",
    "TokensSection",
    "TrainSection",
    "dump_config",
    "load_config",
    "load_deepspeed_config",
    "load_resolved",
    "parse_config",
    "read_yaml",
    "with_overrides",
]
