"""MATEY: multiscale adaptive transformers for spatiotemporal physics."""

from matey.data import open_dataset
from matey.evaluate.rollout import rollout
from matey.fields import FieldBatch
from matey.model.configuration import MateyConfig
from matey.model.matey import MateyModel

__all__ = ["FieldBatch", "MateyConfig", "MateyModel", "open_dataset", "rollout"]
__version__ = "0.1.0"
