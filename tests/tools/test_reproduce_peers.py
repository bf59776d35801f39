"""The comparison of MATEY with other models, as a command."""

import csv
import sys

import pytest

from tests.support.programs import start
from tests.support.small_files import write_waves


def compare(out, *flags, **kwargs):
    return start([sys.executable, "tools/reproduce.py", "peers", "--out", out, *flags], **kwargs)


@pytest.fixture
def refuse(run_here, tmp_path):
    """Return a function that runs the command in this process and returns the sentence with which it ends."""

    def run(*flags):
        status, _, said = run_here("tools/reproduce.py", "peers", "--out", tmp_path / "study", *flags)
        assert status == 2 and said.startswith("error: ") and not (tmp_path / "study").exists()
        return said

    return run


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    """Return two small sets as --data takes them."""
    folder = tmp_path_factory.mktemp("waves")
    systems = ("shallow_water", "diffusion_reaction")
    return ",".join(str(write_waves(folder / system, system, num_trajectories=10, num_frames=13)) for system in systems)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--seconds", "soon"], "--seconds takes whole numbers such as 1,6,12, got 'soon'."),
        (["--data", "nowhere"], "nowhere does not exist"),
        (["--set", "train.stepz=3"], "unknown key 'train.stepz'"),
        (["--set", "train.steps=3"], "--set train.steps: it follows from --seconds."),
        (["--set", "model.parameters=[gravity]"], "tell MATEY what the peers cannot be told; compare without them"),
        (["--set", "data.workers=1"], "would not be counted, while the peers read their own; compare without them"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_runs(flags, words, waves, refuse):
    assert words in refuse(*(["--data", waves] if "--data" not in flags else []), *flags)


def test_two_sets_of_one_system_are_refused(waves, refuse):
    water = waves.split(",")[0]
    assert "both hold shallow_water; give one set for each system." in refuse("--data", f"{water},{water}")


def test_scales_are_listed_and_single_flags_win_over_them(tmp_path):
    listed = compare(tmp_path, "--list", "--scale", "tiny").stdout.split()
    assert len(listed) == 15 and listed[0] == "stencil-shallow_water-2-0"
    laptop = compare(tmp_path, "--list", "--seeds", "1").stdout.split()
    assert len(laptop) == 30 and {name.split("-")[2] for name in laptop} == {"30", "110"}
    planned = compare(tmp_path, "--plan", "--scale", "laptop", "--seconds", "60")
    assert planned.stdout.startswith("45 trainings, 0.8 hours of CPU time") and not list(tmp_path.iterdir())
    planned = compare(tmp_path, "--plan", "--scale", "paper")
    assert planned.stdout.startswith("45 trainings, 48 GPU hours")
    missing = compare(tmp_path, "--scale", "paper")
    assert missing.returncode == 2 and "--data data/pdebench/2D_rdb_NA_NA.h5: " in missing.stderr
    assert "2D_rdb_NA_NA.h5 does not exist" in missing.stderr and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_comparison_goes_on_where_it_stopped_and_ends_with_table_and_plot(waves, tmp_path):
    flags = ["--data", waves, "--seconds", "2", "--scale", "tiny"]
    flags += ["--set", "data.lead_max=3", "--set", "train.validation_windows=8"]
    result = compare(tmp_path / "study", *flags, timeout=900)
    assert result.returncode == 0, result.stderr
    assert [word in result.stdout for word in ("rollout 10 by 3", "over", "samples/s, training")] == 3 * [True]
    folder = tmp_path / "study" / "peers-tiny"
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == (7 + 1) * 2 * 4
    assert all(float(row["seconds"]) > 0 and int(row["parameters"]) > 0 for row in rows)
    assert (folder / "results.png").stat().st_size > 10_000

    results = {path: path.stat().st_mtime_ns for path in (folder / "points").glob("*/rows.json")}
    assert len(results) == 7 * 2 + 1
    lost = next(path for path in results if "unet-shallow_water" in str(path))
    lost.unlink()
    again = compare(tmp_path / "study", *flags, timeout=600)
    assert again.returncode == 0, again.stderr
    assert [path for path, time in results.items() if path.stat().st_mtime_ns != time] == [lost]
    refused = compare(tmp_path / "study", *flags, "--data", waves.split(",")[0])
    assert refused.returncode == 2 and "holds a study with" in refused.stderr
