"""Peers that were trained for seconds beside MATEY in one evaluation, through the command."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from matey.config import dump_config
from matey.studies.peers import Comparison, points_of
from tests.support.models import PATCHES, make_model
from tests.support.paths import ROOT
from tests.support.small_files import write_waves

WATER, REACTION = "shallow_water", "diffusion_reaction"
pytestmark = pytest.mark.whole  # each needs peers that are trained
SECONDS = 0.2  # of each training
PEER = f"stencil-{WATER}-{SECONDS}-0"
ALL = ["--leads", "1", "--rollout", "2", "--max-windows", "4"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return a folder with data, a run of MATEY and points of a comparison, each trained for a moment."""
    site = tmp_path_factory.mktemp("peers")
    paths = {s: str(write_waves(site / s, s, num_trajectories=10, num_frames=14)) for s in (WATER, REACTION)}
    points = points_of([*paths], [SECONDS], 1)
    settings = ("data.lead_max=3", "train.validation_windows=8")
    study = Comparison(work=ROOT, out=site / "study", settings=settings, paths=paths, points=points, max_windows=2)
    for point in points:
        if point.model == "stencil" or (point.model in ("U-Net", "FNO") and point.systems == (WATER,)):
            study.run_point(point)
    make_model(PATCHES, torch.float32).save_pretrained(site / "waves" / "model")
    (site / "waves" / "config.yaml").write_text(dump_config(study.run_config(points[-1])))
    return site


@pytest.fixture
def evaluate(site, run_here):
    """Return a function that runs the command on folders of the site: exit status, standard output and error."""

    def run(*names, arguments=ALL, out="out"):
        folders = [folder_of(site, name) for name in names]
        return run_here("launch/evaluate.py", "--checkpoint", *folders, "--out", site / out, *arguments)

    return run


def folder_of(site, name):
    return site / name if name == "waves" else site / "study" / "points" / f"{name}-{SECONDS}-0"


def cells_of(text, system, forecast, head="NRMSE"):
    """Return the numbers of a row of the table with a head."""
    lines = iter(text[text.index(head) :].splitlines())
    for line in lines:
        if line.startswith(system):
            while forecast not in line:
                line = next(lines)
            return line[line.index(forecast) + len(forecast) :].split()
    raise AssertionError(f"no {system} in {text}")


@pytest.mark.slow
def test_peers_are_scored_beside_matey_on_the_same_windows(site, evaluate):
    names = ["stencil-shallow_water", "unet-shallow_water", "fno-shallow_water", "waves", "stencil-diffusion_reaction"]
    status, out, error = evaluate(*names)
    assert status == 0, error
    matey, *peers = (
        json.loads((site / "out" / f"{folder_of(site, name).name}" / "metrics.json").read_text())
        for name in ["waves", *names[:3]]
    )
    water = [record for record in matey if record["system"] == WATER]
    shared = ("field", "kind", "lead", "num_windows", "persistence_nrmse", "extrapolation_nrmse")
    for records in peers:
        assert [[r[key] for key in shared] for r in records] == [[r[key] for key in shared] for r in water]
        assert {record["seams"] for record in records} == {None} and records[0]["nrmse"] != water[0]["nrmse"]
    shown = cells_of(out, WATER, "lead 1")
    assert len(shown) == 7 and shown[4] == "-" and "-" not in shown[:4] and shown[0].endswith("*")
    assert [cell == "-" for cell in cells_of(out, REACTION, "lead 1")] == [True, True, True, False, False, False, False]
    tokens = cells_of(out, WATER, "", "tokens per sample")[1:]
    assert [cell == "-" for cell in tokens] == [True, True, True, False, True]
    said = f"Trained on one system alone, and not scored on the others: {names[0]}-{SECONDS}-0, "
    assert said in out and said in (site / "out" / "waves" / "report.html").read_text()
    page = (site / "out" / "report.html").read_text()
    assert page.count("<h3>shallow_water, ") == 4 and page.count("<h3>diffusion_reaction, ") == 2


def test_what_a_peer_was_trained_on_is_refused_as_of_matey(site, evaluate):
    status, _, error = evaluate("waves", "stencil-shallow_water", arguments=[*ALL, "--data", site / WATER])
    assert status == 2 and f"{PEER}: shallow_water: the model was trained on 8 of these 10" in error


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "peer.safetensors").unlink(), "cannot be used: No such file"),
        (lambda f: save_file({"1": torch.zeros(3, 3)}, f / "peer.safetensors"), "not those of a U-Net on 1 fields"),
        (lambda f: nan_in(f / "peer.safetensors"), "its training diverged"),
        (lambda f: (f / "peer.json").unlink(), "is neither a run"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_in_a_sentence(spoil, words, site, evaluate):
    broken = folder_of(site, "broken")
    shutil.copytree(folder_of(site, "unet-shallow_water"), broken, dirs_exist_ok=True)
    spoil(broken)
    status, _, error = evaluate("broken", arguments=["--data", site / WATER])
    assert status == 2 and words in error and error.count("\n") == 1, error


def nan_in(path):
    weights = {name: weight.clone() for name, weight in load_file(path).items()}
    weights["out.bias"][0] = float("nan")
    save_file(weights, path)
