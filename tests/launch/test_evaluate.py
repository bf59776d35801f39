"""The evaluation command: end to end in a process of its own, and what goes wrong on the way."""

import json
import shutil
import sys
from functools import partial

import h5py
import numpy as np
import pytest
import torch
import yaml

from matey.checkpoints.trained import write_peer
from matey.config import dump_config, load_config
from matey.data import open_dataset
from matey.data.split_record import seen_text
from matey.data.splits import fingerprints, split_groups
from matey.metrics import error_text
from matey.peers.networks import PeerFacts, untrained
from matey.train.run_data import open_data
from tests.support.described_files import describe, flow
from tests.support.models import PATCHES, make_model
from tests.support.paths import ROOT
from tests.support.programs import start, start_ranks
from tests.support.small_files import write_waves

NUM_FRAMES = 12
RUN = {
    "data": {"history": 2, "lead_max": 3, "split": [0.4, 0.2, 0.4], "split_seed": 1},
    "train": {"steps": 2},
    "output": {"dir": "runs/waves"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a run in ``waves`` and the two data sets that it names."""
    folder = tmp_path_factory.mktemp("evaluate")
    for system in ("shallow_water", "diffusion_reaction"):
        write_waves(folder / system, system, num_trajectories=5, num_frames=NUM_FRAMES)
    make_model(PATCHES, torch.float32).save_pretrained(folder / "waves" / "model")
    sets = [{"path": str(folder / system)} for system in ("shallow_water", "diffusion_reaction")]
    (folder / "waves" / "config.yaml").write_text(yaml.safe_dump(RUN | {"data": RUN["data"] | {"sets": sets}}))
    log = [{"step": step, "loss": 1 / step, "num_tokens": 9, "seconds": 0.1} for step in (1, 2)]
    (folder / "waves" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return folder


@pytest.fixture
def evaluate(run_here):
    """Return a function that runs the command in this process: exit status, standard output and error."""
    return partial(run_here, "launch/evaluate.py")


def test_a_run_is_not_told_to_fine_tune_on_the_data_that_it_was_trained_on(folder, evaluate, tmp_path):
    shutil.copytree(folder / "waves", tmp_path / "waves")
    model = make_model(PATCHES, torch.float32)
    model.config.scales = {"water_height": [[90.0] * 3, [91.0] * 3]}
    model.save_pretrained(tmp_path / "waves" / "model")
    flags = ("--checkpoint", tmp_path / "waves", "--out", tmp_path / "out", "--leads", "1", "--rollout", "0")
    for data, is_said in (((), False), (("--data", folder / "shallow_water"), True)):
        status, printed, errors = evaluate(*flags, *data)
        assert status == 0 and ("lies outside what the model was trained on" in printed) is is_said, errors


def test_a_run_is_evaluated_on_its_own_test_trajectories(folder, tmp_path):
    out = tmp_path / "new" / "out"
    command = ["launch/evaluate.py", "--checkpoint", folder / "waves", "--out", out, "--leads", "1,3"]
    result = start([sys.executable, *command, "--rollout", 4, "--threads", 1])
    assert result.returncode == 0, result.stderr
    assert "Loading weights" not in result.stderr
    assert f"Report: {tmp_path}/new/out/report.html" in result.stdout and "correlation time" in result.stdout
    records = json.loads((out / "metrics.json").read_text())
    fields = {"shallow_water": ("water_height", "all"), "diffusion_reaction": ("activator", "inhibitor", "all")}
    assert {(r["system"], r["field"]) for r in records} == {(s, each) for s, own in fields.items() for each in own}
    # The run was trained on leads of up to three snapshots.
    assert {r["kind"] for r in records} == {"lead", "rollout", "rollout by 3"}
    num_trajectories = len(split_groups([[n] for n in range(5)], (0.4, 0.2, 0.4), 1).test)
    for record in records:
        # A window has two frames of history, and what follows it must be there as well.
        follow = record["lead"] if record["kind"] == "lead" else 4
        assert record["num_windows"] == num_trajectories * (NUM_FRAMES - 2 - follow + 1)
    wanted = {"system": "shallow_water", "field": "all", "kind": "lead", "lead": 3}
    (chosen,) = (record for record in records if record.items() >= wanted.items())
    row = f"{error_text(chosen['vrmse'])} {error_text(chosen['persistence_vrmse'])} {error_text(chosen['nrmse'])}"
    assert row in " ".join(result.stdout.split())


def test_ranks_that_share_out_the_forecasts_find_what_one_process_does(folder, tmp_path, evaluate, without_page):
    how = ("--rollout", "12", "--max-windows", "2", "--batch", "1", "--threads", "1")
    command = ["--checkpoint", folder / "waves", *how]
    assert evaluate(*command, "--out", tmp_path / "one")[0] == 0
    two = start_ranks(2, ROOT / "launch/evaluate.py", "--local_rank=0", *command, "--out", tmp_path / "two")
    assert two.returncode == 0 and two.stdout.count("Report:") == 1 and "Traceback" not in two.stderr, two.stderr
    one = (tmp_path / "one" / "metrics.json").read_text()
    assert (tmp_path / "two" / "metrics.json").read_text() == one and one.count('"rollout by 3"') > 0
    assert "Rollouts end with the truth, after 10 snapshots." in two.stdout


def test_data_can_be_seen_coarser_in_time_and_space(folder, tmp_path, evaluate, without_page):
    status, out, error = evaluate(
        *("--checkpoint", folder / "waves" / "model", "--data", folder / "shallow_water", "--out", tmp_path),
        *("--leads", "1", "--rollout", "0", "--every", "3", "--means", "2"),
    )
    assert status == 0 and "seen coarser: every 3 frames, means of 2 cells along each axis." in out, error
    # 4 of 12 frames, of which windows of 2 and 1 are 2.
    assert json.loads((tmp_path / "metrics.json").read_text())[0]["num_windows"] == 10


@pytest.mark.whole
def test_data_that_the_run_trained_on_is_refused_or_scored_with_a_note(folder, tmp_path, evaluate):
    run = shutil.copytree(folder / "waves", tmp_path / "run")
    data = open_dataset(folder / "shallow_water")
    (run / "seen.txt").write_text(seen_text([fingerprints(data, range(4))], [range(4)]))
    command = ["--checkpoint", run, "--data", folder / "shallow_water", "--out", tmp_path / "out", "--leads", "1"]
    command += ["--rollout", "0", "--max-windows", "2"]
    status, _, error = evaluate(*command)
    assert status == 2 and "trained on 4 of these 5 trajectories" in error and "--seen score" in error
    assert not (tmp_path / "out").exists()
    status, out, error = evaluate(*command, "--seen", "score")
    assert status == 0 and "trained on 4 of these 5 trajectories: their errors flatter it" in out, error
    assert "their errors flatter it" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--checkpoint", "{folder}"], "is neither a run (it has no config.yaml) nor a model (it has no config.json)"),
        (["--checkpoint", "{folder}/waves/model"], "names no data; give --data"),
        (["--checkpoint", "{folder}/waves", "--leads", "40"], "expected at least 42 frames"),
        (["--checkpoint", "{folder}/waves", "--out", "{folder}/waves/config.yaml/out"], "Cannot write to"),
    ],
)
def test_a_mistake_of_the_user_is_one_sentence(arguments, words, folder, tmp_path, evaluate):
    arguments = [argument.format(folder=folder) for argument in arguments]
    out = [] if "--out" in arguments else ["--out", tmp_path]
    status, printed, error = evaluate(*arguments, *out)
    assert (status, printed, len(error.splitlines())) == (2, "", 1)
    assert error.startswith("error: ") and words in error and list(tmp_path.iterdir()) == []


@pytest.mark.whole
def test_several_models_are_set_side_by_side_in_one_table_and_page(folder, tmp_path, evaluate):
    model = tmp_path / "other"
    make_model(PATCHES, torch.float32, scheme="svit").save_pretrained(model)
    command = ["--data", folder / "shallow_water", "--leads", "1", "--rollout", "2", "--max-windows", "4"]
    status, out, error = evaluate("--checkpoint", folder / "waves", model, *command, "--out", tmp_path / "out")
    assert status == 0, error
    assert out.count("waves") == out.count("other") == 5
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count('class="best"') == 2 and page.count("<img") == 1 + 2  # curves, and each model's worst case
    for name in ("waves", "other"):
        assert f'href="{name}/report.html"' in page and (tmp_path / "out" / name / "report.html").exists()


@pytest.fixture
def command(tmp_path):
    """Return a command that evaluates a model on waves in the plane, and on dyes that keep their total."""
    write_waves(tmp_path / "data", "shallow_water", num_trajectories=3)
    write_waves(tmp_path / "data", "diffusion_reaction", num_trajectories=2)
    (tmp_path / "data" / "dyes").mkdir()
    with h5py.File(tmp_path / "data" / "dyes" / "run.h5", "w") as file:
        file["dye"] = 1 + np.random.default_rng(0).random((16, 16, 16), dtype="f4")
    dyes = flow(system="dyes", files="run.h5", fields={"water_height": "dye"}, conserved=["water_height"])
    describe(tmp_path / "data" / "dyes", dyes)
    make_model(PATCHES, torch.float32).save_pretrained(tmp_path / "model")
    data = sorted((tmp_path / "data").iterdir())
    how = "--leads 1,3 --rollout 6 --rollout-lead 3 --batch 3 --history 2 --max-windows 4 --threads 1 --conserve"
    return [ROOT / "launch/evaluate.py", "--checkpoint", tmp_path / "model", "--data", *data, *how.split()]


def approximate(value):
    if isinstance(value, dict):
        return {name: approximate(each) for name, each in value.items()}
    # Forecasts are in float32, whose rounding is 1.2e-7 of a correlation near one, several times in a rollout.
    return pytest.approx(value, rel=1e-6, abs=5e-7) if isinstance(value, float) else value


@pytest.mark.usefixtures("without_page")
def test_ranks_that_share_each_forecast_find_the_errors_of_one_process(command, run_here, tmp_path):
    status, _, errors = run_here("launch/evaluate.py", *command[1:], "--out", tmp_path / "one")
    assert status == 0, errors
    two = start_ranks(2, *command, "--share", "2", "--out", tmp_path / "two")
    assert two.returncode == 0 and two.stdout.count("Report:") == 1 and "Traceback" not in two.stderr, two.stderr
    assert "Ranks held parts of the fields: there are no pictures" in two.stdout
    assert "Rollouts of dyes keep the totals of: water_height." in two.stdout
    assert "Rollouts of shallow_water keep no totals" in two.stdout
    report = (tmp_path / "two" / "report.html").read_text()
    assert ">Errors over rollouts</h2>" in report and ">Adaptive mesh</h2>" not in report
    one, ours = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert len(ours) == len(one) and {row["kind"] for row in ours} == {"lead", "rollout", "rollout by 3"}
    dyes = [row for row in one if row["physics"] and row["system"] == "dyes"]
    drifts = {row["kind"]: row["physics"]["total_water_height"] for row in dyes}
    assert max(drifts["rollout"], drifts["rollout by 3"]) < 1e-6 < drifts["lead"]
    for found, expected in zip(ours, one, strict=True):
        assert found.pop("seams") is None
        known = {n: value for n, value in expected["physics"].items() if "diverg" not in n and "power" not in n}
        expected["physics"] = known
        assert "seams" in expected and found == {name: approximate(expected[name]) for name in found}


def test_what_one_of_the_ranks_that_share_a_forecast_meets_ends_all(command, tmp_path):
    with h5py.File(next((tmp_path / "data").glob("*rdb*")), "r+") as file:
        file["0002/data"][5, -1, -1] = np.nan
    bad = start_ranks(2, *command, "--share", "2", "--out", tmp_path / "bad")
    assert bad.returncode == 2 and bad.stderr.count("error:") == 1 and "trajectory 0002" in bad.stderr, bad.stderr


SYSTEMS = ("shallow_water", "diffusion_reaction")


@pytest.mark.whole
def test_a_peer_stands_beside_matey_on_the_same_windows(tmp_path, run_here):
    sets = [{"path": str(write_waves(tmp_path / name, name, num_trajectories=10, num_frames=14))} for name in SYSTEMS]
    run = load_config("launch/runs/demo.yaml", [f"data.sets={json.dumps(sets)}", "data.lead_max=3"])
    waves, peer, data = tmp_path / "waves", tmp_path / "peer", open_data(run)
    make_model(PATCHES, torch.float32).save_pretrained(waves / "model")
    (waves / "config.yaml").write_text(dump_config(run))
    peer.mkdir()
    facts = PeerFacts(kind="small U", system=SYSTEMS[0], fields=("water_height",), history=2, lead_max=3)
    seen = seen_text(data.prints, [split.train for split in data.splits])
    write_peer(peer, untrained("small U", 2, 1), facts, data.record, seen)
    how = ["--leads", "1", "--rollout", "2", "--max-windows", "4", "--out", tmp_path / "out"]
    status, out, error = run_here("launch/evaluate.py", "--checkpoint", waves, peer, *how)
    assert status == 0 and "Trained on one system alone, and not scored on the others: peer." in out, error
    of_waves, of_peer = (
        json.loads((tmp_path / "out" / each / "metrics.json").read_text()) for each in ("waves", "peer")
    )
    shared = ("field", "kind", "lead", "num_windows", "persistence_nrmse", "extrapolation_vrmse")
    expected = [[r[key] for key in shared] for r in of_waves if r["system"] == SYSTEMS[0]]
    assert [[record[key] for key in shared] for record in of_peer] == expected
    assert {record["seams"] for record in of_peer} == {None} and of_peer[0]["nrmse"] != of_waves[0]["nrmse"]
    (peer / "peer.safetensors").unlink()
    status, _, error = run_here("launch/evaluate.py", "--checkpoint", waves, peer, *how)
    assert status == 2 and "cannot be used: No such file" in error
