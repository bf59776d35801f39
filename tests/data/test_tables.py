"""Parameters of trajectories that stand in a table beside the data."""

import json
import os

import h5py
import numpy as np
import pytest
import zarr

from matey.data import DataError, open_dataset
from matey.data.index import Index
from tests.support.described_files import describe, flow

TABLES = {"Re": {"table": "runs.csv"}, "angle": {"table": "runs.csv", "column": "alpha (deg)"}}
FLOW = flow(fields={"u": "u"}, parameters=TABLES)
CSV = "run,Re,alpha (deg)\nb,200,\n a ,1e2, 0.5\n"


def write(path, groups=("",), num_frames=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for group in groups:
            file[f"{group}/u"] = np.zeros((num_frames, 8, 8), "f4")


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
    write(tmp_path / "x" / "run.h5", ("0", "1"))
    write(tmp_path / "y" / "run.h5", ("0", "1"))
    keys = {"files": "*/run.h5", "fields": {"u": "*/u"}, "parameters": {"Re": {"table": "runs.csv"}}}
    assert parameters(tmp_path, "file,Re\nx/run.h5,1\nrun,2\n", **keys) == [
        {"Re": 1}, {"Re": 1}, {"Re": 2}, {"Re": 2},
    ]  # fmt: skip
    assert parameters(tmp_path, "file,Re\nx/run.h5/1,7\n1,6\n0,5\n", **keys) == [
        {"Re": 5}, {"Re": 7}, {"Re": 5}, {"Re": 6},
    ]  # fmt: skip


def test_a_trajectory_of_snapshots_has_one_row(tmp_path):
    for run in "ab":
        for number in range(3):
            (tmp_path / run).mkdir(exist_ok=True)
            np.save(tmp_path / run / f"{number}.npy", np.zeros((8, 8), "f4"))
    found = parameters(tmp_path, files="*/*.npy", axes=["y", "x"], fields={"u": {}})
    assert found == [{"Re": 100, "angle": 0.5}, {"Re": 200}]


def test_a_description_in_a_run_finds_the_table_in_the_folder_of_its_data(runs):
    (runs / "runs.csv").write_text(CSV)
    for path in (runs, runs / "*.h5", runs / "a.h5"):
        assert open_dataset(path, FLOW).trajectories[0].parameters == {"Re": 100, "angle": 0.5}


def test_the_table_of_a_store_lies_beside_it_and_rows_may_be_paths_without_ending(tmp_path):
    zarr.create_group(tmp_path / "x" / "a.zarr").create_array("u", data=np.ones((4, 8, 8), "f4"))
    (tmp_path / "x" / "runs.csv").write_text(CSV)
    found = open_dataset(tmp_path / "x" / "a.zarr", FLOW).trajectories[0].parameters
    assert found == {"Re": 100, "angle": 0.5}
    (tmp_path / "x" / "runs.csv").unlink()
    (tmp_path / "runs.csv").write_text("run,Re\nx/a,3\n")
    describe(tmp_path, FLOW | {"files": "x/a.zarr", "parameters": {"Re": {"table": "runs.csv"}}})
    assert open_dataset(tmp_path).trajectories[0].parameters == {"Re": 3}


def test_a_table_that_changed_is_read_again(runs):
    parameters(runs)
    first = Index("code")
    open_dataset(runs, index=first)
    (runs / "runs.csv").write_text(CSV.replace("200", "300"))
    os.utime(runs / "runs.csv", (1, 1))
    assert open_dataset(runs, index=Index("code", first.text())).trajectories[1].parameters == {"Re": 300}


WRONG = {
    "no column": ("run,Rey,alpha (deg)\na,1,2\nb,1,2", "expected a column 'Re' .* found Rey, alpha .* mean 'Rey'\\? Correct"),
    "no row": ("run,Re,alpha (deg)\na,1,2", "expected a row 'b.h5' or 'b' for .*b.h5, trajectory b, found a; add it"),
    "a word": (CSV.replace("1e2", "fast"), "expected a number in the column 'Re' of the row 'a', got 'fast'; correct it"),
    "infinity": (CSV.replace("1e2", "inf"), "expected a number .* got 'inf'"),
    "two rows": (CSV + "a,1,2\n", "is not a table: the row 'a' occurs twice; correct it"),
    "more cells": (CSV + "c,1,2,3\n", "the row 'c' has 4 cells below 3 names of columns"),
    "semicolons": (CSV.replace(",", ";"), "expected a first line .* divided by commas, .* got 'run;Re;alpha .* 2 rows"),
    "nothing": ("", "expected a first line with the names of columns, .* got '' and 0 rows"),
    "quotes": ('run,Re\n"a,1', "is not CSV: unexpected end of data"),
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


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"column": "Re"}, "expected one of 'array', 'attribute', 'in_name' and 'table'"),
        ({"attribute": "Re", "column": "Re"}, "'column' goes with 'table'"),
        ({"table": "runs.xlsx"}, "expected a table in .csv or .json, got 'runs.xlsx'"),
    ],
)
def test_a_source_that_is_no_table_is_refused(runs, source, message):
    with pytest.raises(DataError, match=f"parameters.Re.*{message}"):
        parameters(runs, parameters={"Re": source})
