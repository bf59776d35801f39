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
    (tmp_path / "points" / "begun").mkdir(parents=True)

    def take(scale):
        monkeypatch.setitem(SCALES, "laptop", scale)
        points = points_of(["pretrained"], ["all"], [96], 1)
        claim(tmp_path, DataEfficiencyStudy(ROOT, tmp_path, "thermals", "laptop", points).facts)

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
