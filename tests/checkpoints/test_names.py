"""The names of parameters in a checkpoint that somebody else wrote, where they become names of files."""

import pytest
import torch

from matey.checkpoints.convert import convert, write_universal
from matey.checkpoints.run_files import ShardError
from matey.checkpoints.source import WEIGHTS, Source

NAMES = ["../../outside", "/tmp/outside", "null\0"]


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


def test_the_names_of_a_model_are_names_of_files(tmp_path):
    source = source_with(tmp_path / "from", "blocks.0.attention.query.weight", stage=0)
    write_universal(source, tmp_path / "to")
    assert "zero/blocks.0.attention.query.weight/fp32.pt" in written(tmp_path / "to")
