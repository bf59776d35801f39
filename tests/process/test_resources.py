"""What is freed is kept for the next tensors, beside what a fresh process does."""

import os
import subprocess
import sys

import pytest

PAGE_FAULTS = """
import resource, sys
import torch
from matey.process.resources import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for round in range(21):
    if round == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(size, 1 << 18) for size in (2, 9, 17, 4)]  # of MiB
    del tensors
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode, **variables):
    command = [sys.executable, "-c", PAGE_FAULTS, mode]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | variables).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_the_same_tensors_again_take_few_new_pages():
    # Nearly none as a rule; a third where a mapping lies in the heap's way, as addresses are drawn at random.
    assert page_faults("keep") < page_faults("as it is") / 2
