"""The page of all studies in a folder."""

import json

import pytest

from matey.studies.folder import StudyError
from matey.studies.page import write_page_of_all


def test_the_page_has_each_studys_facts_as_text_and_its_results(tmp_path):
    with pytest.raises(StudyError, match="holds no study; run one with --out"):
        write_page_of_all(tmp_path)
    facts = {
        "study": "schemes",
        "scale": "laptop",
        "data": {"gas-64": "60 of 21 frames"},
        "set": [],
        "models": {"vit": "digest5a"},
    }
    for name, of in (("schemes-laptop", facts), ("peers-laptop", {"study": "peers", "set": ["model.size=Ti"]})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.json").write_text(json.dumps(of))
        (tmp_path / name / "results.txt").write_text(f"errors of {name}\n")
    page = write_page_of_all(tmp_path).read_text()
    assert "data: gas-64 (60 of 21 frames)" in page and "set: model.size=Ti" in page and "digest5a" not in page
    assert "errors of schemes-laptop" in page and "errors of peers-laptop" in page


def test_a_folder_that_is_no_study_is_told_and_hides_no_other(tmp_path):
    for name, text in (
        ("a", '{"study": '),
        ("b", "[1]"),
        ("c", '{"study": "schemes"}'),
        ("d", '{"study": "peers"}'),
        ("e", '{"study": ["x"]}'),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.json").write_text(text)
    (tmp_path / "d" / "results.txt").write_text("errors of d\n")
    (tmp_path / "e" / "notes.txt").write_bytes(b"notes in another code: \xfc\n")
    page = write_page_of_all(tmp_path).read_text()
    assert (
        page.count("cannot be read") == 2
        and "<h2>schemes</h2>" in page
        and "errors of d" in page
        and "another code" in page
    )
    with pytest.raises(StudyError, match=f"is the folder of one study; give the folder above: --out {tmp_path}"):
        write_page_of_all(tmp_path / "d")
    with pytest.raises(StudyError, match="is a file; give the folder"):
        write_page_of_all(tmp_path / "d" / "results.txt")
