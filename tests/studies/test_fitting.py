"""The training of peers: what each finds, and what that costs."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from matey.config import load_config
from matey.evaluate.evaluation import score, tasks_of
from matey.evaluate.held_out import hold_out
from matey.peers.stencil import StencilPeer
from matey.studies.fitting import BATCH, fit_stencil, train_network
from matey.studies.trainings import protocol_of
from matey.train.run_data import loss_scales, open_data
from tests.support.models import make_batch, network_of
from tests.support.paths import ROOT
from tests.support.small_files import NAMES, write_groups, write_waves

COUPLING, DIFFUSION = 0.03, 0.1


def ticks():
    """Return a clock by which all that is done between two readings takes a second."""
    return itertools.count().__next__


def run_on(path, *settings):
    run = load_config(ROOT / "launch" / "runs" / "demo.yaml", [f"data.sets=[{{path: {path}}}]", *settings])
    return run, open_data(run)


def records_of(peer, held_out, protocol):
    return score(peer, held_out, protocol, tasks_of(held_out, protocol)).records


def write_diffusion(folder, num_trajectories=10, num_frames=13, size=24):
    """Write fields of which one diffuses and drives the other; walls let nothing through."""
    random = np.random.default_rng(0)

    def trajectory():
        frames = [random.normal(size=(size, size, 2))]
        for _ in range(num_frames - 1):
            now = frames[-1]
            wide = np.pad(now[..., 0], 1, mode="edge")
            around = wide[2:, 1:-1] + wide[:-2, 1:-1] + wide[1:-1, 2:] + wide[1:-1, :-2] - 4 * now[..., 0]
            frames.append(now + np.stack([DIFFUSION * around, COUPLING * now[..., 0]], axis=-1))
        return np.stack(frames)

    path, places = folder / NAMES["diffusion_reaction"], (np.arange(size) + 0.5) / size
    trajectories = (trajectory() for _ in range(num_trajectories))
    return write_groups(path, "diffusion_reaction", trajectories, places, places, 1)


@pytest.mark.whole
def test_a_fitted_stencil_finds_the_scheme_that_made_the_data(tmp_path):
    # With two frames there are many: the last change follows from the frame before, which it gives away.
    run, data = run_on(write_diffusion(tmp_path), "data.lead_max=1", "data.history=1")
    peer = StencilPeer()
    training = fit_stencil(peer, data.mixture, "refuse", seconds=10, now=ticks())
    # The first pass ends with the first batch beyond 0.3 of the cost; the others take the same windows.
    assert training.losses[-1] < 1e-3 and training.steps == 4 * BATCH
    # Of the last frame's first field the cell itself comes first, then its neighbours row by row.
    expected = torch.zeros(4 * 25 + 1, 2, dtype=torch.float64)
    expected[[1 + 7, 1 + 11, 1 + 12, 1 + 16], 0] = DIFFUSION
    expected[0, 1] = COUPLING
    torch.testing.assert_close(peer.weights[1], expected, rtol=0, atol=1e-3)
    records = records_of(peer, hold_out(data.sets, "test", 1, run.data), protocol_of(1, 4))
    assert [(r.kind, r.lead) for r in records if r.field == "all"] == [
        ("lead", 1),
        *(("rollout", n) for n in range(1, 11)),
    ]
    assert max(record.ratio for record in records) < 0.02


@pytest.mark.whole
def test_a_stencil_predicts_every_sample_at_its_own_lead(tmp_path):
    _, data = run_on(write_diffusion(tmp_path), "data.lead_max=3")
    peer = StencilPeer()
    fit_stencil(peer, data.mixture, "refuse", seconds=10, now=ticks())
    batch = make_batch("diffusion_reaction", ("activator", "inhibitor"), 3)
    leads = torch.tensor([3.0, 1.0, 2.0])
    together = peer.predict(replace(batch, lead_time=leads))
    for sample, lead in enumerate(leads):
        alone = peer.predict(replace(batch, lead_time=lead.expand(3)))
        assert torch.equal(together[sample], alone[sample])
    assert peer.num_parameters == 3 * 2 * 101


@pytest.mark.whole
@pytest.mark.parametrize(
    "kind", [pytest.param("FNO", marks=pytest.mark.slow), "small U"]
)  # complex weights have a kernel of their own
def test_training_a_network_lowers_its_loss_and_ends_before_a_step_too_many(kind, tmp_path):
    run, data = run_on(write_waves(tmp_path, "shallow_water", num_trajectories=10), "data.lead_max=3")
    peer = network_of(kind)
    training = train_network(peer, run, data, loss_scales(run, data), 3e-3, seconds=50, now=ticks())
    assert training.seconds == training.steps == len(training.losses) == 49
    # Untrained it is persistence, whose loss is 1.
    assert np.mean(training.losses[-(training.steps // 4) :]) < 0.8
    protocol = replace(protocol_of(3, 20), rollout_steps=0)
    records = records_of(peer, hold_out(data.sets, "train", 2, run.data), protocol)
    assert max(record.ratio for record in records) < 0.9
