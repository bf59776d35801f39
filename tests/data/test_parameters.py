"""Parameters of trajectories: in a table beside the data, in names of files, folders and groups, or in attributes."""

import os

import h5py
import numpy as np
import pytest

from matey.data import DataError, open_dataset
from matey.data.dates import number_in
from tests.support.described_files import describe, flow

TABLES = {"Re": {"table": "runs.csv"}, "angle": {"table": "runs.csv", "column": "alpha (deg)"}}
FLOW = flow(fields={"u": "u"}, parameters=TABLES)
CSV = "run,Re,alpha (deg)\nb,200,\n a ,1e2, 0.5\n"


def write(path, *trajectories):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["u"] = np.zeros((*trajectories, 4, 8, 8), "f4")


def parameters(folder, table=CSV, **keys):
    (folder / "runs.csv").write_text(table)
    describe(folder, FLOW | keys)
    return [about.parameters for about in open_dataset(folder).trajectories]


@pytest.fixture
def runs(tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}.h5")
    return tmp_path


def test_each_file_has_the_numbers_of_its_row_and_empty_cells_are_not_known(runs):
    assert parameters(runs) == [{"Re": 100, "angle": 0.5}, {"Re": 200}]


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
    "a word": (CSV.replace("1e2", "fast"), "expected a number in the column 'Re' of .*a.h5.* got 'fast'; correct"),
    "two rows": (CSV + "a,1,2\n", "is not a table: .* each row, once, .* got 'a,1,2' below"),
    "semicolons": (CSV.replace(",", ";"), "expected a first line .* divided by commas, .* got 'b;200;' below 'run;Re;alpha"),
}  # fmt: skip


@pytest.mark.parametrize(("table", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_table_is_refused_in_one_sentence_that_names_it(runs, table, message):
    with pytest.raises(DataError, match=f"runs.csv.*{message}") as refused:
        parameters(runs, table)
    assert "\n" not in str(refused.value)


def test_a_table_that_is_missing_is_refused(runs):
    with pytest.raises(DataError, match="gone.csv cannot be read .No such file or directory., where the description"):
        parameters(runs, parameters={"Re": {"table": "gone.csv"}})


def parameters_of(folder, **keys):
    describe(folder, flow() | keys)
    return [about.parameters for about in open_dataset(folder).trajectories]


def write_array(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.zeros((4, 8, 8), "f4"))


def test_numbers_are_read_from_the_names_of_folders_and_files(tmp_path):
    for name in ("Re100/u_nu0.01.npy", "Re100/u_nu1e-3.npy", "Re2.5e+3/u_nu-1.npy"):
        write_array(tmp_path / name)
    parameters = {"Re": {"in_name": "Re{}"}, "nu": {"in_name": "nu{}"}}
    found = parameters_of(tmp_path, files="Re*/u_*.npy", fields={"u": {}}, parameters=parameters)
    assert found == [{"Re": 100, "nu": 0.01}, {"Re": 100, "nu": 0.001}, {"Re": 2500, "nu": -1}]


@pytest.mark.parametrize(
    ("name", "form", "number"),
    [
        ("/data/Re7/Re100/u.h5", "Re{}", 100),
        ("PreRe7_Re8", "Re{}", 8),
        ("nu0.01Re100.h5", "nu{}", 0.01),
        ("100K_run", "{}K", 100),
        ("100Kelvin", "{}K", None),
    ],
)
def test_the_number_is_the_last_one_in_that_text(name, form, number):
    assert number_in(name, form) == number


def attributed(path, values):
    with h5py.File(path, "w") as file:
        file["u"] = np.zeros((2, 4, 8, 8), "f4")
        for (where, name), value in values.items():
            (file[where] if where else file).attrs[name] = value


RUNS = {"axes": ["trajectory", "time", "y", "x"], "fields": {"u": "u"}, "parameters": {"nu": {"attribute": "nu"}}}


def test_an_attribute_may_have_a_number_for_each_trajectory_or_be_that_of_the_array(tmp_path):
    attributed(tmp_path / "a.h5", {("", "nu"): [0.1, 0.2]})
    attributed(tmp_path / "b.h5", {("u", "nu"): 0.3})
    attributed(tmp_path / "c.h5", {("u", "nu"): 0.3, ("", "nu"): 0.4})
    attributed(tmp_path / "d.h5", {})
    numbers = [{"nu": 0.1}, {"nu": 0.2}, *[{"nu": 0.3}] * 2, *[{"nu": 0.4}] * 2, {}, {}]
    assert parameters_of(tmp_path, **RUNS) == numbers
