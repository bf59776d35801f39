"""tools/plan.py from the command line."""

from functools import partial

import pytest
import torch

from matey.config import load_config
from matey.planning.estimate import as_pretrained, estimate
from matey.planning.machine import load_machine
from matey.planning.workload import Assumed, load_workload
from tests.support.models import make_model
from tests.support.paths import ROOT

CPU = load_machine("cpu")
MINI = {"num_heads": 4, "width": 128, "num_blocks": 8}
PAPER = ["--config", "launch/runs/paper_pretrain_vit_b.yaml", "--deepspeed_config", "ds_configs/frontier_zero1.json"]


@pytest.fixture
def plan(run_here):
    """Return a function that runs the tool in this process: exit status, standard output and error."""
    return partial(run_here, "tools/plan.py")


@pytest.fixture(scope="module")
def papers_workload():
    return load_workload(load_config(PAPER[1]), Assumed(), num_samples=2)


@pytest.fixture
def plan_paper(plan, papers_workload, monkeypatch):
    """The same for the paper's run, of which a few samples are taken once for all tests."""

    def load(run, assumed, pretrained):
        assert (run, assumed, pretrained) == (load_config(PAPER[1]), Assumed(), None)
        return papers_workload

    monkeypatch.setattr("matey.planning.estimate.load_workload", load)
    return partial(plan, *PAPER, "--nodes", "92", "--machine")


@pytest.mark.whole
def test_the_papers_run_is_planned_without_its_data(plan_paper):
    status, printed, _ = plan_paper("frontier")
    assert status == 0
    parts = ("    blocks", "    embedding, decoding", "    layers on cells", "    fields")
    words = ("ranks 736, nodes of Frontier 92", "global batch 1472", "not counted on data", "model FLOPs", *parts)
    words += ("of 476.8 that a node has, for ranks 8",)
    assert all(each in printed for each in words)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("device", "node", "words"),
    [
        ("3.6e+9", "512.0e+9", "recompute blocks (parallel."),
        ("64.0e+9", "0.1e+9", "main memory of a node does not suffice"),
    ],
)
def test_what_does_not_fit_ends_with_1_and_what_takes_less(plan_paper, tmp_path, device, node, words):
    text = (ROOT / "matey" / "planning" / "machines" / "frontier.yaml").read_text()
    text = text.replace("memory: 64.0e+9", f"memory: {device}").replace("memory: 512.0e+9", f"memory: {node}")
    (tmp_path / "small.yaml").write_text(text)
    status, printed, _ = plan_paper(tmp_path / "small.yaml")
    assert status == 1 and words in printed


def test_what_is_offloaded_and_prepared_is_counted_for_all_ranks_of_a_node():
    run = load_config(PAPER[1], ["data.workers=3"])
    workload = load_workload(run, Assumed(), num_samples=1)
    offload = {"zero_optimization": {"stage": 1, "offload_optimizer": {"device": "cpu"}}}
    planned = estimate(run, offload, load_machine("frontier"), ranks=12, workload=workload)
    num = workload.operations.num_parameters
    assert planned.memory.optimizer == 0 and planned.memory.offloaded == pytest.approx(num)
    assert planned.on_node == pytest.approx(6 * (planned.main_memory + num)) and planned.fits
    offload["zero_optimization"]["offload_optimizer"] = {"device": "nvme", "nvme_path": "/nvme"}
    planned = estimate(run, offload, load_machine("frontier"), ranks=12, workload=workload)
    assert (planned.memory.optimizer, planned.memory.offloaded) == (0, 0)  # a disk holds it
    assert estimate(run, {}, CPU, ranks=1, workload=workload).node_memory is None


def test_a_run_with_data_counts_its_tokens_and_mistakes_end_with_2(run_yaml, plan):
    own = ["--config", run_yaml(), "--deepspeed_config", "ds_configs/zero1.json", "--ranks", "2"]
    status, printed, _ = plan(*own, "--machine", "cpu")
    assert status == 0 and "counted on 32 windows of the data" in printed
    status, _, error = plan(*own, "--machine", "laptop")
    assert status == 2 and error.startswith("error: ") and "no machine 'laptop'" in error


def test_a_fine_tuning_is_planned_with_the_network_of_its_model(tmp_path):
    make_model(((1, 1, 4, 4),), torch.float32, set="uniform", **MINI).save_pretrained(tmp_path / "mini")
    sets = ["data.sets=[{path: nowhere}]", "model.fields=[water_height]"]
    run = load_config(ROOT / "launch/runs/finetune_thermals.yaml", [*sets, f"finetune.pretrained={tmp_path / 'mini'}"])
    planned, _, notes = as_pretrained(run)
    assert (planned.model.size, planned.tokens.set, len(planned.tokens.patches)) == ("mini", "uniform", 1)
    absent, _, said = as_pretrained(
        run.model_copy(update={"finetune": run.finetune.model_copy(update={"pretrained": "gone"})})
    )
    assert "since its pretrained model is not there: " in said[0] and absent.model.size == run.model.size
    assert notes == said[1:] == ["All weights count as trained, though finetune.train is prepost."]
