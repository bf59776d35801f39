"""Names of models that lead nowhere are refused before anyone is asked for them."""

import pytest

from matey import MateyConfig, MateyModel
from matey.model.place import place_of


@pytest.mark.parametrize("kind", [MateyConfig, MateyModel])
@pytest.mark.parametrize("name", ["nope", "runs/never_made/model", "models/matey-micr", "./run", "../run", "a b/c", ""])
def test_what_is_no_folder_and_no_name_on_the_hub_is_refused_at_once(kind, name, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("a server was asked"))
    with pytest.raises(
        FileNotFoundError, match="There is no folder .* here, and it is no owner/name of a model on the"
    ):
        kind.from_pretrained(name)


def test_a_name_on_the_hub_and_a_folder_are_left_to_hugging_face(tmp_path):
    assert place_of("ornl/matey-1.5") == "ornl/matey-1.5"
    assert place_of(tmp_path) == str(tmp_path)
    with pytest.raises(OSError, match="^(?!There is no folder)"):
        MateyModel.from_pretrained("ornl/matey", local_files_only=True)


def test_the_model_that_comes_with_the_program_is_known_by_name_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("matey-micro", "models/matey-micro"):
        assert MateyConfig.from_pretrained(name).model_type == "matey"
    with pytest.raises(FileNotFoundError, match="There is no folder zero1 here"):
        MateyConfig.from_pretrained("zero1")
