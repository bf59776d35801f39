"""DeepSpeed is told which accelerator there is."""

import subprocess
import sys

from tests.support.programs import clean_environment

CODE = """
import os
from matey.parallel.package import deepspeed
print(deepspeed().accelerator.get_accelerator().device_name(), os.environ.get("DS_ACCELERATOR"))
"""


def test_deepspeed_is_told_the_accelerator_and_no_variable_stays():
    hidden = clean_environment() | {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
    del hidden["DS_ACCELERATOR"]
    result = subprocess.run([sys.executable, "-c", CODE], env=hidden, capture_output=True, text=True, check=True)
    assert result.stdout.split()[-2:] == ["cpu", "None"] and "Setting accelerator" not in result.stderr
