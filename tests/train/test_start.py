"""What many ranks do at their start: each file is looked at once for all of them, and what is found is the same everywhere."""

import json

import h5py
import pytest

from tests.support.layout_files import write_the_well
from tests.support.programs import start_ranks

NUM_FILES, NUM_RANKS = 12, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files in The Well's layout, no two with the same values."""
    folder = tmp_path_factory.mktemp("well") / "test_flow" / "data"
    for number in range(NUM_FILES):
        path = write_the_well(folder / ("valid" if number % 4 == 0 else "train") / f"{number:03d}.hdf5")
        with h5py.File(path, "a") as file:
            file["t0_fields/height"][...] *= 1 + number / 7
    return folder


@pytest.fixture(scope="module")
def start(folder, tmp_path_factory):
    def start(num_ranks):
        out = tmp_path_factory.mktemp("run")
        tree = {
            "model": {"size": "micro"},
            "tokens": {"set": "uniform", "patches": [[1, 1, 2, 2]]},
            "data": {"sets": [{"path": str(folder)}], "history": 2, "lead_max": 3, "split": [0.9, 0.1, 0]},
            "train": {"steps": 1, "loss": "balanced", "validation_windows": 30},
            "output": {"dir": str(out / "run")},
        }
        (out / "run.yaml").write_text(json.dumps(tree))
        result = start_ranks(num_ranks, "tests/train/start_cases.py", folder, out / "run.yaml")
        assert result.returncode == 0, result.stderr[-3000:]
        return json.loads(result.stdout.splitlines()[-1])

    return {num_ranks: start(num_ranks) for num_ranks in (1, NUM_RANKS)}


@pytest.mark.processes
def test_each_file_is_opened_twice_to_describe_it_and_once_or_twice_to_read_it(start):
    assert start[1]["described"] == [3, 3 * NUM_FILES]
    most, total = start[NUM_RANKS]["described"]
    assert most <= 4 and total <= 3 * NUM_FILES + NUM_RANKS - 1


@pytest.mark.processes
def test_all_ranks_find_what_one_finds_bit_for_bit(start):
    assert start[NUM_RANKS]["is everywhere"]
    for what in ("trajectories", "seen", "scales"):
        assert start[NUM_RANKS][what] == start[1][what]
