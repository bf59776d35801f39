"""The studies, as commands."""

import csv
import sys

import pytest
import torch

from matey import MateyConfig, MateyModel
from tests.conftest import start


def study(out, *flags, **kwargs):
    return start([sys.executable, "tools/reproduce.py", "data_efficiency", "--out", out, *flags], **kwargs)


def test_a_mistake_is_one_sentence(tmp_path):
    result = study(tmp_path / "study", "--scale", "paper", "--sizes", "1")
    assert result.returncode == 2 and "error: --scale paper needs --pretrained RUN_OR_MODEL." in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_study_goes_on_where_it_stopped_and_ends_with_table_and_plot(tmp_path):
    torch.manual_seed(0)
    patches = ((2, 1, 16, 16), (2, 1, 8, 8))
    config = MateyConfig.from_size("micro", fields=("water_height",), patches=patches, token_set="mix", history=2)
    MateyModel(config).save_pretrained(tmp_path / "old")
    flags = ["--sizes", "1", "--modes", "head", "--seeds", "1", "--pretrained", tmp_path / "old"]
    result = study(tmp_path / "study", *flags, "--starts", "pretrained", timeout=600)
    assert result.returncode == 0, result.stderr
    done = tmp_path / "study" / "points" / "pretrained-head-1-0" / "report.html"
    before = done.stat().st_mtime_ns
    result = study(tmp_path / "study", *flags, timeout=600)
    assert result.returncode == 0, result.stderr
    assert done.stat().st_mtime_ns == before
    with (tmp_path / "study" / "data_efficiency.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["start"], row["lead"]) for row in rows] == [
        ("pretrained", "1"), ("pretrained", "5"), ("random", "1"), ("random", "5")
    ]  # fmt: skip
    assert (tmp_path / "study" / "data_efficiency.png").stat().st_size > 10_000
    # The random start has the pretrained model's vocabulary, of which the data holds no field.
    random = MateyModel.from_pretrained(tmp_path / "study" / "points" / "random-head-1-0" / "model")
    assert random.config.fields[0] == "water_height"
    result = study(tmp_path / "study", *flags, "--system", "mhd")
    assert result.returncode == 2 and "holds a study with" in result.stderr
