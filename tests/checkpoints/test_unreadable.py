"""Files of a checkpoint that may not be read, and links that lead nowhere: each is one sentence.

The names of parameters in a checkpoint that somebody else wrote, where they become names of files.
"""

import tempfile
from pathlib import Path

import pytest
import torch

from matey.checkpoints.convert import convert, write_universal
from matey.checkpoints.run_files import MODEL_STATES, ShardError, step_folder
from matey.checkpoints.source import WEIGHTS, Source, open_checkpoint, open_shard
from tests.support.nobody import said_to_nobody


@pytest.fixture
def step():
    """A folder that everybody may look into, with a shard in it."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "step_000002"
        folder.mkdir()
        torch.save({"global_steps": 2}, folder / MODEL_STATES)
        Path(root).chmod(0o755)
        yield folder


def test_a_shard_or_a_folder_that_may_not_be_read_is_not_called_damaged(step):
    (step / MODEL_STATES).chmod(0)
    words = f"{step / MODEL_STATES} cannot be read (Permission denied)"
    assert said_to_nobody(lambda: open_shard(step / MODEL_STATES)).startswith(words)
    step.chmod(0)
    assert said_to_nobody(lambda: open_checkpoint(step)).startswith(f"{step} cannot be read (Permission denied)")
    step.chmod(0o755)


COMMON = {
    "zero_stage": 1,
    "global_steps": 2,
    "dp_world_size": 1,
    "param_shapes": [{"a": torch.Size((2,))}],
    "ds_version": "0.19",
    "versions": {},
}


def test_an_optimizer_without_what_is_looked_up_in_it_is_one_sentence(tmp_path):
    torch.save(COMMON, tmp_path / MODEL_STATES)
    source = open_checkpoint(tmp_path)
    torch.save({"optimizer_state_dict": {}}, source.optimizer_file(0))
    with pytest.raises(ShardError, match="optim_states.pt does not hold what a checkpoint must have there .KeyError"):
        source.whole(WEIGHTS)


def test_a_latest_that_names_nothing_is_not_taken_for_the_folder_itself(tmp_path):
    (tmp_path / "latest").touch()
    with pytest.raises(ShardError, match="latest names '', which is not beside it"):
        step_folder(tmp_path)


NAMES = ["../../outside", "null\0"]


def source_with(folder, name, stage):
    """A checkpoint without ZeRO, or a universal one, with one parameter of that name."""
    weights = {name: torch.ones(3)}
    moments = {"step": torch.tensor(2.0), "exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3)}
    adam = {"state": {0: moments}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    common = {
        "global_steps": 2,
        "dp_world_size": 1,
        "ds_version": "0.19.0",
        "param_shapes": None if stage == 0 else [{name: torch.Size([3])}],
        "module": weights if stage == 0 else {},
        "trained": [[name]],
        "optimizer": adam,
    }
    folder.mkdir()
    return Source(folder, stage, common)


def written(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_whose_name_leads_elsewhere_writes_nothing(tmp_path, name):
    source = source_with(tmp_path / "from", name, stage=0)
    with pytest.raises(ShardError, match="which is not a valid file name"):
        write_universal(source, tmp_path / "to" / "universal")
    assert written(tmp_path) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_whose_name_leads_elsewhere_reads_nothing(tmp_path, name):
    (tmp_path / "outside").mkdir()
    torch.save({"param": torch.ones(3)}, tmp_path / "outside" / "fp32.pt")
    source = source_with(tmp_path / "from", name, stage=None)
    for use in (source.files, lambda: source.parameter(WEIGHTS, name), lambda: source.whole(WEIGHTS)):
        with pytest.raises(ShardError, match="which is not a valid file name"):
            use()
    with pytest.raises(ShardError, match="which is not a valid file name"):
        convert(source, None, "fp32", tmp_path / "out", average=False, dtype="float32")
    assert written(tmp_path) == ["outside/fp32.pt"]
