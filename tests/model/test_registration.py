"""AutoModel knows the model once MateyModel is imported, in whatever order."""

import subprocess
import sys

import pytest
import torch

from tests.support.models import make_model
from tests.support.paths import ROOT
from tests.support.programs import start


# A new interpreter has imported neither; one that is forked, transformers.
@pytest.mark.parametrize(
    ("order", "anew"),
    [
        ("from matey import MateyModel; from transformers import {}", True),
        ("from transformers import {}; from matey import MateyModel", False),
    ],
    ids=["matey_first", "transformers_first"],
)
def test_transformers_load_a_model_by_its_own_name(tmp_path, order, anew):
    make_model(dtype=torch.float32).save_pretrained(tmp_path / "model")
    code = (
        f"{order.format('AutoConfig, AutoModel')}; print(type(AutoModel.from_pretrained({str(tmp_path / 'model')!r})))"
    )
    code += f"; print(type(AutoConfig.from_pretrained({str(tmp_path / 'model')!r})))"
    (tmp_path / "load.py").write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}")
    result = start([sys.executable, tmp_path / "load.py"], anew=anew)
    assert "MateyModel" in result.stdout and "MateyConfig" in result.stdout, result.stderr


def test_importing_matey_does_not_import_transformers():
    code = "import matey, sys; print('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
