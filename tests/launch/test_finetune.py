"""The fine-tuning command in real processes: from a pretrained model to its own, with ZeRO and sequence groups."""

import sys

import pytest
import torch
import yaml

from matey import MateyConfig, MateyModel
from matey.checkpoints.trained import load_trained
from tests.support.programs import TWO_RANKS, start
from tests.support.runs import fail, metrics, succeed
from tests.support.small_files import write_waves

OLD = ("inhibitor", "water_height")
MODES = ("prepost", "all", "lora", "head")


@pytest.fixture
def site(tmp_path):
    """A folder with a model, data of which it knows one field, and a run YAML."""
    torch.manual_seed(0)
    config = MateyConfig.from_size("micro", fields=OLD, tokens={"patches": ((1, 1, 8, 8), (1, 1, 4, 4))}, history=2)
    model = MateyModel(config)
    for parameter in (model.cells_after.field_out, *model.giving.parameters()):
        torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(tmp_path / "old")
    write_waves(tmp_path / "data", "diffusion_reaction", num_trajectories=10)
    tree = {
        "data": {"sets": [{"path": str(tmp_path / "data")}], "lead_max": 2},
        "train": {"steps": 3, "micro_batch": 4, "validate_every": 3, "checkpoint_every": 2, "validation_windows": 4},
        "output": {"dir": str(tmp_path / "run")},
        "finetune": {"pretrained": str(tmp_path / "old")},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path


def finetune(site, name, *more, launcher=(sys.executable,), stage=1, micro_batch=4):
    """Fine-tune into site / name; returns what the process printed."""
    command = [
        "launch/finetune.py",
        "--deepspeed_config",
        f"ds_configs/zero{stage}.json",
        "--config",
        site / "run.yaml",
    ]
    values = [f"output.dir={site / name}", f"train.micro_batch={micro_batch}"]
    return start([*launcher, *command, *(part for value in values for part in ("--set", value)), *more])


def weights(folder):
    return load_trained(folder).model.state_dict()


def test_all_but_the_blocks_are_trained_and_known_rows_that_see_no_data_stay(site):
    result = succeed(
        finetune(site, "run", "--train", "prepost", "--trajectories", "2", "--set", "train.optimizer=muon")
    )
    assert "AdamW trains all: train.optimizer is muon, but no matrix of the blocks is trained." in result.stdout
    assert "2/1/1 train/valid/test trajectories" in result.stdout
    assert "New fields: activator (mean)." in result.stdout
    old, new = weights(site / "old"), weights(site / "run")
    assert load_trained(site / "run").model.config.fields == [*OLD, "activator"]
    for name, value in old.items():
        rows = new[name][: len(value)]
        if name.startswith("blocks"):
            assert torch.equal(rows, value), name
        elif name.endswith("field_weight"):
            assert torch.equal(rows[1], value[1]) and not torch.equal(rows[0], value[0]), name
        elif name.startswith("giving") and name.endswith("weight"):
            assert not torch.equal(rows, value), name
    run = yaml.safe_load((site / "run" / "config.yaml").read_text())
    assert run["finetune"]["train"] == "prepost" and run["model"]["size"] == "micro"
    again = finetune(site, "run", "--train", "all", "--trajectories", "2", "--set", "train.optimizer=muon", "--resume")
    fail(again, "finetune.train = prepost, this one asks for all")


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_every_stage_and_sequence_groups_train_each_part_as_one_process(site, mode):
    succeed(finetune(site, "one", "--train", mode))
    expected = metrics(site / "one")
    # Each mode with every stage, with both groups, and each stage with both groups of two of the modes.
    for stage in (0, 1, 2, 3):
        size = 1 + (stage + MODES.index(mode)) % 2
        name, more = f"{stage}-{size}", ["--set", f"parallel.sequence_parallel_size={size}"]
        ranks = {"launcher": TWO_RANKS, "stage": stage, "micro_batch": 2 * size}
        succeed(finetune(site, name, "--train", mode, *more, **ranks))
        assert metrics(site / name) == pytest.approx(expected, rel=1e-5), name


@pytest.mark.slow
def test_a_resumed_run_has_the_losses_of_the_uninterrupted_one_with_rates_by_part(site):
    rates = "train.groups={decoder: {learning_rate: 0.003}, embedding_fields: {learning_rate: 0.01}}"
    more = ["--train", "lora", "--set", rates, "--set", "train.layer_decay=0.8", "--set", "train.schedule=constant"]
    succeed(finetune(site, "whole", *more, stage=3))
    succeed(finetune(site, "halves", *more, "--set", "train.steps=2", stage=3))
    succeed(finetune(site, "halves", *more, "--resume", stage=3))
    assert metrics(site / "halves") == metrics(site / "whole") and len(metrics(site / "whole")) == 3
    of_groups = metrics(site / "whole", "learning_rate_by_group")[1]
    assert len({*of_groups.values()}) > 3 and max(of_groups.values()) <= 0.01
