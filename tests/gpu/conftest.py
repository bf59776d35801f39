"""What is held on a GPU: `make gpu` runs it there; elsewhere the same code runs on the CPU, and the GPU's part is skipped."""

import pytest
import torch

NO_GPU = "no GPU is here: torch.cuda.is_available() is false"


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """Return each device that a test runs on; the GPU is skipped where there is none."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip(NO_GPU)
    return request.param
