"""The Python of docs/python.md runs as it stands: a loop of one's own, Hugging Face's Trainer, AutoModel."""

import re
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.programs import start

CODE = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL))
PROBE = "    optimizer.step()\n"


@pytest.mark.slow
def test_a_loop_of_ones_own_and_hugging_faces_trainer_train_as_the_page_says(tmp_path):
    code = CODE.replace(PROBE, f"{PROBE}    print('loss', loss.item())\n", 1) + "print(type(model).__name__)\n"
    result = start([sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r})\n{code}"])
    assert result.returncode == 0, result.stderr
    losses = [float(value) for value in re.findall(r"^loss (\S+)$", result.stdout, re.M)]
    assert len(losses) == 40 and sum(losses[-5:]) < 0.6 * sum(losses[:5])
    before, after = re.search(r"validation (\S+) -> (\S+)", result.stdout).groups()
    assert float(after) < float(before)
    assert result.stdout.endswith("MateyModel\n")
