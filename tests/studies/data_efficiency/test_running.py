"""The study of data efficiency: what its folder is told by."""

from dataclasses import replace
from typing import Any

import pytest

from matey.studies.data_efficiency.points import points_of
from matey.studies.data_efficiency.running import DataEfficiencyStudy
from matey.studies.data_efficiency.scales import LAPTOP, SCALES
from matey.studies.folder import StudyError, claim
from tests.support.paths import ROOT


def test_a_folder_goes_on_with_its_settings_and_takes_more_sizes_and_seeds(tmp_path, monkeypatch):
    def take(scale, pretrained=None):
        monkeypatch.setitem(SCALES, "laptop", scale)
        points = points_of(["pretrained"], ["all"], [96], 1)
        claim(tmp_path, DataEfficiencyStudy(ROOT, tmp_path, "thermals", "laptop", points, pretrained).facts)
        (tmp_path / "points" / "begun").mkdir(parents=True, exist_ok=True)

    take(LAPTOP)
    take(replace(LAPTOP, seeds=5, modes="all", sizes={"thermals": "1,96", "mhd": "1"}))
    others: list[dict[str, Any]] = [
        {"settings": (*LAPTOP.settings, "train.steps=7")},
        {"peer_seconds": 1},
        {"max_windows": 1},
    ]
    for other in others:
        with pytest.raises(StudyError, match="choose another --out"):
            take(replace(LAPTOP, **other))


def test_a_folder_is_of_the_weights_that_it_was_begun_with(tmp_path):
    weights = tmp_path / "run" / "model" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    study = DataEfficiencyStudy(
        ROOT, tmp_path / "out", "thermals", "laptop", points_of(["pretrained"], ["all"], [96], 1), str(tmp_path / "run")
    )
    for content in (b"first", b"first", b"trained anew"):
        weights.write_bytes(content)
        if content == b"first":
            claim(study.out, study.facts)
            (study.out / "points" / "begun").mkdir(parents=True, exist_ok=True)
    with pytest.raises(StudyError, match="holds a study with {'weights': .*choose another --out"):
        claim(study.out, study.facts)
