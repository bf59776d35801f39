"""Which folders a run may use, and what in them it leaves alone."""

import subprocess
from contextlib import suppress

import pytest

from matey.checkpoints.run_files import LOCK, replace_text
from matey.config import ConfigError, load_config
from matey.train.checkpoint import RunFolder
from matey.train.folder import check_folder


def refuse(path, words):
    before = sorted(str(entry) for entry in path.parent.rglob("*"))
    with pytest.raises(ConfigError, match=words) as refused:
        check_folder(path)
    assert len(str(refused.value).splitlines()) == 1
    with pytest.raises(ConfigError, match=words), RunFolder(path).in_use():
        pass
    assert sorted(str(entry) for entry in path.parent.rglob("*")) == before


def test_a_name_that_deepspeed_would_take_for_a_pattern_is_refused(tmp_path):
    refuse(tmp_path / "lr[1e-3]", "takes .* for parts of a pattern")


def test_the_working_folder_and_those_above_it_are_refused(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    for name in (".", "..", str(tmp_path), "../inner"):
        with pytest.raises(ConfigError, match="is the working folder or one above it"):
            check_folder(RunFolder(name).path)


def test_a_folder_with_something_else_in_it_is_refused_and_nothing_in_it_is_touched(tmp_path):
    (tmp_path / "package" / "model").mkdir(parents=True)
    (tmp_path / "package" / "model" / "code.py").write_text("mine")
    refuse(tmp_path / "package", "holds model and was not made by a run")
    (tmp_path / "file").write_text("mine")
    refuse(tmp_path / "file", "which is no folder")


@pytest.mark.parametrize(
    "name",
    [
        *("model", "checkpoints", "checkpoints/step_000002"),
        *("metrics.jsonl", "config.yaml", LOCK),
    ],
)
@pytest.mark.parametrize("kind", ["link", "folder or file"])
def test_a_link_folder_or_file_that_no_run_has_made_is_refused(tmp_path, name, kind):
    run = tmp_path / "run"
    (run / name).parent.mkdir(parents=True)
    for marker in ("config.yaml", "ds_config.json"):
        (run / marker).write_text("{}")
    (run / name).unlink(missing_ok=True)
    if kind == "link":
        (run / name).symlink_to(tmp_path / "nowhere")
    elif name in ("metrics.jsonl", "config.yaml", LOCK):
        (run / name).mkdir()
    else:
        (run / name).write_text("mine")
    words = "was not made by a run" if name == "config.yaml" else f"{name} is a .*, which no run has made"
    refuse(run, words)


def test_a_foreign_folder_called_model_in_a_runs_folder_is_refused(tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / LOCK).touch()
    (tmp_path / "run" / "model" / "code.py").write_text("mine")
    refuse(tmp_path / "run", "holds no model, and the run would put its best weights in its place")


def test_a_full_disk_refuses_a_run_in_a_sentence(tmp_path):
    place = tmp_path / "mounted"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        (place / "run").mkdir()
        (place / "run" / LOCK).touch()
        with (place / "full").open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        with pytest.raises(ConfigError, match="Cannot write to .*No space left"), RunFolder(place / "run").in_use():
            pass
        with pytest.raises(OSError, match="No space left"):
            replace_text(place / "run" / "config.yaml", "steps: 3")
        assert [path.name for path in (place / "run").iterdir()] == [LOCK]
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_run_behind_a_link_is_moved_aside_in_its_place_and_the_link_stays(tmp_path, run_yaml):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "link").symlink_to("scratch")
    folder = RunFolder(tmp_path / "link")
    with folder.in_use():
        folder.start(load_config(run_yaml()), {})
        (tmp_path / "link" / "metrics.jsonl").write_text("an earlier run's")
        folder.start(load_config(run_yaml()), {})
        assert (tmp_path / "scratch.1" / "metrics.jsonl").read_text() == "an earlier run's"
        assert (tmp_path / "link").is_symlink() and not (tmp_path / "scratch" / "metrics.jsonl").exists()
        # The new one is locked, the old one no longer.
        assert (tmp_path / "scratch" / LOCK).read_text() and not (tmp_path / "scratch.1" / LOCK).read_text()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"../step_000004", "names '../step_000004', which is not beside it"),
        (b"other", "which no run has saved"),
        (b"\xff\xfe\x00binary", "cannot be read .it is no text."),
        ("folder", "cannot be read .Is a directory."),
        ("link", "cannot be read .No such file or directory."),
    ],
)
def test_a_latest_that_names_no_checkpoint_is_one_sentence(tmp_path, content, words):
    folder = RunFolder(tmp_path)
    for name in ("step_000004", "other"):
        (folder.checkpoints / name).mkdir(parents=True)
    latest = folder.checkpoints / "latest"
    if content == "folder":
        latest.mkdir()
    elif content == "link":
        latest.symlink_to("nowhere")
    else:
        latest.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        folder.newest_step()


def test_without_latest_the_newest_whole_checkpoint_counts_and_not_a_partial_one(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.newest_step() is None
    for name in ("step_000002", "step_000004", "step_000006.new", "step_8"):
        (folder.checkpoints / name).mkdir(parents=True)
    (folder.checkpoints / "step_000010").symlink_to("step_000002")
    assert folder.newest_step() == 4
