"""Parameters of trajectories that stand in a table beside the data."""

import json
import os

import h5py
import numpy as np
import pytest

from matey.data import DataError, open_dataset
from tests.support.described_files import describe, flow

TABLES = {"Re": {"table": "runs.csv"}, "angle": {"table": "runs.csv", "column": "alpha (deg)"}}
FLOW = flow(fields={"u": "u"}, parameters=TABLES)
CSV = "run,Re,alpha (deg)\nb,200,\n a ,1e2, 0.5\n"


def write(path, *trajectories):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["u"] = np.zeros((*trajectories, 4, 8, 8), "f4")


def parameters(folder, table=CSV, suffix="csv", **keys):
    (folder / f"runs.{suffix}").write_text(table)
    describe(folder, FLOW | keys)
    return [about.parameters for about in open_dataset(folder).trajectories]


@pytest.fixture
def runs(tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}.h5")
    return tmp_path


def test_each_file_has_the_numbers_of_its_row_and_empty_cells_are_not_known(runs):
    assert parameters(runs) == [{"Re": 100, "angle": 0.5}, {"Re": 200}]
    rows = {"a": {"Re": 100, "alpha (deg)": 0.5}, "b": {"Re": 200, "alpha (deg)": None}}
    tables = {name: of | {"table": "runs.json"} for name, of in TABLES.items()}
    assert parameters(runs, json.dumps(rows), "json", parameters=tables) == [{"Re": 100, "angle": 0.5}, {"Re": 200}]


def test_rows_are_called_as_the_paths_or_names_of_files_or_as_trajectories(tmp_path):
    write(tmp_path / "x" / "run.h5", 2)
    write(tmp_path / "y" / "run.h5", 2)
    keys = {"files": "*/run.h5", "axes": ["trajectory", "time", "y", "x"], "parameters": {"Re": {"table": "runs.csv"}}}
    assert parameters(tmp_path, "file,Re\nx/run.h5,1\nrun,2\n", **keys) == [
        {"Re": 1}, {"Re": 1}, {"Re": 2}, {"Re": 2},
    ]  # fmt: skip
    assert parameters(tmp_path, "file,Re\nx/run.h5/1,7\n1,6\n0,5\n", **keys) == [
        {"Re": 5}, {"Re": 7}, {"Re": 5}, {"Re": 6},
    ]  # fmt: skip


def test_a_table_that_changed_is_read_again(runs):
    parameters(runs)
    (runs / "runs.csv").write_text(CSV.replace("200", "300"))
    os.utime(runs / "runs.csv", (1, 1))
    assert open_dataset(runs).trajectories[1].parameters == {"Re": 300}


WRONG = {
    "no column": ("run,Rey,alpha (deg)\na,1,2\nb,1,2", "expected a column 'Re' .* found Rey, alpha .* mean 'Rey'\\? Correct"),
    "no row": ("run,Re,alpha (deg)\na,1,2", "expected a row 'b.h5' or 'b' for .*b.h5, trajectory b, found a; add it"),
    "a word": (CSV.replace("1e2", "fast"), "expected a number in the column 'Re' of the row 'a', got 'fast'; correct it"),
    "two rows": (CSV + "a,1,2\n", "is not a table: .* each row, once, .* got 'a,1,2' below"),
    "semicolons": (CSV.replace(",", ";"), "expected a first line .* divided by commas, .* got 'b;200;' below 'run;Re;alpha"),
}  # fmt: skip


@pytest.mark.parametrize(("table", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_table_is_refused_in_one_sentence_that_names_it(runs, table, message):
    with pytest.raises(DataError, match=f"runs.csv.*{message}") as refused:
        parameters(runs, table)
    assert "\n" not in str(refused.value)


def test_a_table_that_is_missing_or_no_table_in_json_is_refused(runs):
    with pytest.raises(DataError, match="gone.csv cannot be read .No such file or directory., where the description"):
        parameters(runs, parameters={"Re": {"table": "gone.csv"}})
    for text, message in (("[1]", 'is not a table: expected each row .* {"run_00"'), ("{", "is not JSON")):
        with pytest.raises(DataError, match=f"runs.json {message}"):
            parameters(runs, text, "json", parameters={"Re": {"table": "runs.json"}})
