"""AutoModel knows the model once MateyModel is imported, in whatever order."""

import subprocess
import sys

import pytest

from tests.support.models import make_model


@pytest.mark.parametrize(
    "order",
    [
        "from matey import MateyModel; from transformers import {}",
        "from transformers import {}; from matey import MateyModel",
    ],
)
def test_transformers_load_a_model_by_its_own_name(tmp_path, order):
    import torch

    make_model(dtype=torch.float32).save_pretrained(tmp_path)
    code = f"{order.format('AutoConfig, AutoModel')}; print(type(AutoModel.from_pretrained({str(tmp_path)!r})))"
    code += f"; print(type(AutoConfig.from_pretrained({str(tmp_path)!r})))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MateyModel" in result.stdout and "MateyConfig" in result.stdout, result.stderr


def test_importing_matey_does_not_import_transformers():
    code = "import matey, sys; print('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
