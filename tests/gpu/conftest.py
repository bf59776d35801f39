"""What is held on a GPU: `make gpu` runs it there; elsewhere the same code runs on the CPU, and the GPU's part is skipped.

Whole runs of training are for the GPU alone. TESTS_GPU_ON=cpu has the CPU run them in its place, to try the tests themselves.
"""

import os

import pytest
import torch

NO_GPU = "no GPU is here: torch.cuda.is_available() is false"
IN_ITS_PLACE = os.environ.get("TESTS_GPU_ON", "cuda")


def here(request):
    """Return the device that a test asks for, which is skipped where there is none."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip(NO_GPU)
    return request.param


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """Return each device that a test runs on."""
    return here(request)


@pytest.fixture(params=[pytest.param(IN_ITS_PLACE, marks=pytest.mark.gpu)])
def gpu(request):
    """Return the GPU, on which alone a test runs."""
    return here(request)
