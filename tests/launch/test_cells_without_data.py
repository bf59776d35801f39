"""An ocean with an island, by the commands: from files with NaN on land, or any values under a mask, to forecasts."""

import json
import re
import sys

import numpy as np
import pytest
import xarray
import yaml

from matey.data import open_dataset, split_set
from tests.support.programs import TWO_RANKS, start
from tests.support.runs import metrics, pretrain, succeed

FRAMES, ISLAND = 10, (slice(5, 16), slice(8, 16))  # a patch of 8 x 8 cells holds no data at all


def write_ocean(folder, under=np.nan, bare=0):
    """Write temperatures that currents carry past an island; the last ``bare`` of ten files have none."""
    random = np.random.default_rng(0)
    folder.mkdir()
    y, x, t = np.arange(24), np.arange(32), np.arange(FRAMES)
    for number in range(10):
        land = np.zeros((24, 32), np.int8)
        land[ISLAND] = number < 10 - bare
        waves = zip(random.uniform(0.2, 1, 5), random.integers(1, 4, 5), random.uniform(0, 6, 5), strict=True)
        phases = [
            2 * np.pi * k / 32 * (x - 0.6 * t[:, None, None]) + k * y[:, None] / 9 + p for _, k, p in (w for w in waves)
        ]
        water = 15 + sum(np.sin(phase) / (2 + at) for at, phase in enumerate(phases))
        fields = {"sst": (("time", "lat", "lon"), np.where(land, under, water).astype(np.float32), {"units": "degC"})}
        places = {"time": t * 3600.0, "lat": y * 0.25, "lon": x * 0.25}
        xarray.Dataset({**fields, "land": (("lat", "lon"), land)}, places).to_netcdf(folder / f"run_{number}.nc")
    return folder


def described(folder, **more):
    """Have the files described, and answer the questions."""
    yml = folder / "matey.yaml"
    succeed(start([sys.executable, "tools/inspect_data.py", folder / "run_0.nc", "--describe", yml]))
    tree = yaml.safe_load(yml.read_text())
    assert tree["fields"] == {"sst": "sst"} and tree["boundary"] == {"y": "TODO", "x": "TODO"}
    ends = {"y": "wall", "x": "periodic"}
    yml.write_text(yaml.safe_dump(tree | {"system": "ocean", "files": "run_*.nc", "boundary": ends} | more))
    return folder


def trained(folder, name, launcher=(sys.executable,), **sections):
    tree = {
        "model": {"size": "micro"},
        "tokens": {"set": "mix", "patches": [[1, 1, 8, 8], [1, 1, 4, 4]], "refine": 0.2},
        "data": {"sets": [{"path": str(folder)}], "history": 2, "lead_max": 3},
        "train": {"steps": 4, "micro_batch": 4, "unroll": 1, "unroll_share": 0.5, "validation_windows": 4},
        "output": {"dir": str(folder.parent / name)},
    }
    path = folder.parent / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree | sections))
    succeed(pretrain(path, launcher=launcher))
    return folder.parent / name


def by_hand(data, numbers, lead):
    """The mean NRMSE and VRMSE of persistence over all windows, in water alone."""
    errors = []
    for number in numbers:
        frames = data.read(number, 0, FRAMES)[:, 0, 0].astype(np.float64)
        for first in range(1, FRAMES - lead):
            last, true = frames[first], frames[first + lead]
            missed, water = np.nanmean((last - true) ** 2), np.count_nonzero(~np.isnan(true))
            of_true = np.nanmean(true**2), np.nanvar(true) * water / (water - 1) + 1e-7
            errors.append([np.sqrt(missed / size) for size in of_true])
    return np.mean(errors, axis=0)


def test_an_ocean_with_an_island_goes_from_files_to_a_forecast(tmp_path):
    folder = described(write_ocean(tmp_path / "ocean"))
    told = succeed(start([sys.executable, "tools/inspect_data.py", folder, "--plot", "--out", tmp_path / "sheet.png"]))
    share = np.zeros((24, 32))[ISLAND].size / (24 * 32)
    assert re.search(rf"without data +{share:.1%} of the values", told.stdout) and "faults: 0" in told.stdout
    run = trained(folder, "run")
    common = ("--checkpoint", run, "--threads", "1")
    command = [
        sys.executable,
        "launch/evaluate.py",
        *common,
        "--out",
        tmp_path / "out",
        "--leads",
        "1,3",
        "--rollout",
        "4",
    ]
    printed = succeed(start(command)).stdout
    assert "diverged" not in printed
    records = json.loads((tmp_path / "out" / "metrics.json").read_text())
    data = open_dataset(folder)
    for record in records:
        assert (
            0 < record["nrmse"] < 0.1
            and np.isfinite([record["vrmse"], record["correlation"], record["extrapolation_vrmse"]]).all()
        )
        if record["kind"] == "lead":
            expected = by_hand(data, split_set(data, (0.8, 0.1, 0.1), 0).test, record["lead"])
            assert [record["persistence_nrmse"], record["persistence_vrmse"]] == pytest.approx(expected, rel=1e-5)
    out = tmp_path / "forecast.nc"
    film = ("--animate", tmp_path / "film.gif", "--probe", "0,0", "--probe", "6,9")
    succeed(
        start([sys.executable, "launch/predict.py", *common[:2], "--data", folder, "--out", out, "--steps", "5", *film])
    )
    with xarray.open_dataset(out) as found:
        land = np.isnan(data.read(0, 0, 1)[0, 0, 0])
        assert found.sst.shape == (10, 5, 24, 32)
        assert (np.isnan(found.sst.values) == land).all()


@pytest.mark.slow
def test_what_lies_under_a_mask_changes_no_loss_and_no_score(tmp_path, run_here, without_page):
    mask = {"given": {"land": {"array": "land", "axes": ["y", "x"]}}, "mask": {"land": 1}}
    losses, scores = {}, {}
    for name, under, more in (("nan", np.nan, {}), ("garbage", 1e6, mask)):
        folder = described(write_ocean(tmp_path / name, under, bare=5), **more)
        losses[name] = [metrics(trained(folder, f"{name}_run"), key) for key in ("loss", "valid_vrmse")]
        wanted = "--split all --seen score --leads 1,3 --rollout 3 --conserve --threads 1".split()
        out = tmp_path / f"{name}_scores"
        status, *printed = run_here(
            "launch/evaluate.py", "--checkpoint", tmp_path / "nan_run", "--data", folder, *wanted, "--out", out
        )
        assert status == 0, printed
        records = json.loads((out / "metrics.json").read_text())
        scores[name] = [{key: value for key, value in each.items() if key != "worst"} for each in records]
    assert losses["nan"] == losses["garbage"]
    assert scores["nan"] == scores["garbage"]
    two = trained(folder, "two", TWO_RANKS, parallel={"sequence_parallel_size": 2})
    for key, expected in zip(("loss", "valid_vrmse"), losses["nan"], strict=True):
        assert metrics(two, key) == pytest.approx(expected, rel=1e-4)
