"""Files of a checkpoint that may not be read, and links that lead nowhere: each is one sentence."""

import os
import tempfile
from pathlib import Path

import pytest
import torch

from matey.checkpoints.find import open_checkpoint
from matey.checkpoints.newest import ShardError
from matey.checkpoints.shards import open_shard
from matey.checkpoints.source import MODEL_STATES

NOBODY = 65534


@pytest.fixture
def step():
    """A folder that everybody may look into, with a shard in it."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "step_000002"
        folder.mkdir()
        torch.save({"global_steps": 2}, folder / MODEL_STATES)
        Path(root).chmod(0o755)
        yield folder


def said_to_nobody(read):
    """The message of the error that another user meets; root may read everything."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setuid(NOBODY)
            read()
        except ShardError as error:
            os.write(there, str(error).encode())
        finally:
            os._exit(0)
    os.close(there)
    with open(here) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


def test_a_shard_or_a_folder_that_may_not_be_read_is_not_called_damaged(step):
    (step / MODEL_STATES).chmod(0)
    words = f"{step / MODEL_STATES} cannot be read (Permission denied)"
    assert said_to_nobody(lambda: open_shard(step / MODEL_STATES)).startswith(words)
    step.chmod(0)
    assert said_to_nobody(lambda: open_checkpoint(step)).startswith(f"{step} cannot be read (Permission denied)")
    step.chmod(0o755)


def test_a_link_to_itself_and_a_folder_in_the_place_of_a_shard_are_damaged(tmp_path):
    (tmp_path / "link.pt").symlink_to("link.pt")
    (tmp_path / "folder.pt").mkdir()
    for name in ("link.pt", "folder.pt"):
        with pytest.raises(ShardError, match=f"{name} .* is cut short or corrupt"):
            open_shard(tmp_path / name)
