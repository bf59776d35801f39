"""What every section that a user writes is made of: its base class, and names and paths of bounded length."""

from __future__ import annotations

from os.path import expanduser
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

PathText = Annotated[str, Field(min_length=1, max_length=4096)]
FolderText = Annotated[PathText, AfterValidator(expanduser)]
FieldName = Annotated[str, Field(min_length=1, max_length=200)]


class Section(BaseModel):
    """A part of the run YAML; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
