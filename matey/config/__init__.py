"""The configuration that a user writes: the run YAML, the DeepSpeed JSON, and descriptions of data."""

from matey.config.description import DataDescription
from matey.config.loading import (
    ConfigError,
    dump_config,
    load_config,
    load_deepspeed_config,
    parse_config,
    read_yaml,
    source_of,
    with_overrides,
)
from matey.config.schema import (
    CheckpointBlocks,
    CoarsenedSection,
    DataSection,
    FinetuneSection,
    GroupSection,
    ModelSection,
    Part,
    RunConfig,
    TokenSet,
    TokensSection,
    TrainSection,
)
