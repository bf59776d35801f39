"""The folders of studies."""

import json

from matey.studies.folder import folder_among


def test_a_study_has_a_folder_among_others_and_keeps_that_of_earlier_versions(tmp_path):
    assert folder_among(tmp_path, "peers", study="peers") == tmp_path / "peers"
    (tmp_path / "study.json").write_text(json.dumps({"study": "data_efficiency", "system": "mhd"}))
    assert folder_among(tmp_path, "peers", study="peers") == tmp_path / "peers"
    of = {"study": "data_efficiency", "system": "mhd"}
    assert folder_among(tmp_path, "data_efficiency-mhd", **of) == tmp_path
    assert folder_among(tmp_path, "x", **{**of, "system": "thermals"}) == tmp_path / "x"
