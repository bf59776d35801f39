"""Small files in PDEBench's layout in which something moves, and what an evaluation on them finds."""

import pytest
import torch

from matey.data import open_dataset
from matey.evaluate.evaluation import Candidate, Protocol, evaluate, plan_comparison
from matey.evaluate.held_out import HeldOut
from tests.support.models import make_model
from tests.support.small_files import write_waves

PATCHES = ((1, 1, 8, 8), (1, 1, 4, 4))


def plan_tasks(model, data, protocol):
    """What `evaluate` is to do with one model."""
    (tasks,) = plan_comparison([Candidate("model", model, data.num_frames)], data, protocol)
    return tasks


@pytest.fixture(scope="session")
def shallow_water(tmp_path_factory):
    return open_dataset(write_waves(tmp_path_factory.mktemp("swe"), "shallow_water"))


@pytest.fixture(scope="session")
def diffusion_reaction(tmp_path_factory):
    return open_dataset(write_waves(tmp_path_factory.mktemp("dr"), "diffusion_reaction"))


@pytest.fixture(scope="session")
def held_out(shallow_water, diffusion_reaction):
    return HeldOut((shallow_water, diffusion_reaction), ((0, 2), (1,)), num_frames=2)


@pytest.fixture(scope="session")
def model():
    """Return a model whose predictions differ from persistence, by less than where a rollout limits them."""
    model = make_model(PATCHES, torch.float32)
    with torch.no_grad():
        model.cells_after.field_out *= 0.2
    return model


@pytest.fixture(scope="session")
def evaluation(model, held_out):
    protocol = Protocol(leads=(1, 3), rollout_steps=4, max_windows=5, batch_size=5, rollout_lead=3)
    return evaluate(model, held_out, protocol, plan_tasks(model, held_out, protocol))
