"""The peers: what each is given, what it answers, what its training finds, and what that costs."""

import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from matey import FieldBatch
from matey.config import load_config
from matey.evaluate.evaluation import score, tasks_of
from matey.evaluate.held_out import hold_out
from matey.metrics import nrmse
from matey.mistakes import Mistake
from matey.peers.networks import NETWORKS, FourierOperator, peer_inputs
from matey.peers.stencil import StencilPeer
from matey.studies.fitting import BATCH, fit_stencil, train_network
from matey.studies.trainings import protocol_of
from matey.train.run_data import loss_scales, open_data
from tests.support.models import make_batch, network_of, with_gaps
from tests.support.paths import ROOT
from tests.support.small_files import NAMES, write_groups, write_waves


@pytest.mark.parametrize("kind", NETWORKS)
def test_an_untrained_network_is_persistence_on_any_grid(kind):
    batch = make_batch("diffusion_reaction", ("activator", "inhibitor"), grid=(1, 20, 36))
    assert torch.equal(network_of(kind, num_fields=2).predict(batch), batch.last)


@pytest.mark.parametrize("kind", NETWORKS)
def test_adding_a_sample_changes_no_other_forecast(kind):
    peer = network_of(kind)
    for parameter in peer.network.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.1)
    batch = make_batch(num_samples=3)
    alone = FieldBatch(batch.system, batch.fields, batch.history[:1], batch.lead_time[:1])
    torch.testing.assert_close(peer.predict(batch)[:1], peer.predict(alone), rtol=1e-5, atol=1e-5)


def test_networks_are_told_lead_and_scales_and_answer_in_units_of_the_last_change():
    batch = make_batch(num_samples=2)
    batch = replace(batch, lead_time=torch.tensor([1.0, 4.0]))
    inputs = peer_inputs(batch)
    assert inputs.maps.shape == (2, 2, 32, 32) and inputs.conditions.shape == (2, 5)
    # The last frame has unit variance up to that of the frames before it, and its last change unit size.
    assert inputs.maps[:, 1].square().mean(dim=(1, 2)).sqrt().tolist() == pytest.approx([1, 1], rel=1e-5)
    change = (batch.last - batch.history[:, 0]).square().mean(dim=(2, 3, 4)).sqrt()
    torch.testing.assert_close(inputs.scale, change * batch.lead_time[:, None])
    # Other units change the conditions by a constant, and the maps not at all.
    other = peer_inputs(replace(batch, history=1000 * batch.history))
    torch.testing.assert_close(other.maps, inputs.maps, rtol=1e-3, atol=1e-3)
    moved = other.conditions - inputs.conditions
    torch.testing.assert_close(
        moved, torch.tensor([0, 0, 0, np.log(1000) / 2, 0]).float().expand(2, 5), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("kind", ["ResNet", "small U", "U-Net"])
def test_a_network_on_a_plane_that_wraps_around_goes_with_a_shift_of_it(kind):
    peer = network_of(kind)
    for layer in (peer.network.out, *([peer.network.up] if kind == "small U" else [])):
        torch.nn.init.normal_(layer.weight)
    batch = replace(make_batch(num_samples=1), periodic=(False, True, True))
    shifted = replace(batch, history=batch.history.roll((16, 16), (4, 5)))
    torch.testing.assert_close(peer.predict(shifted), peer.predict(batch).roll((16, 16), (3, 4)), rtol=1e-4, atol=1e-4)
    walls = replace(batch, periodic=(False, False, False))
    assert not torch.allclose(peer.predict(walls), peer.predict(batch), atol=1e-3)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_is_trained_on_cells_with_data_alone(kind):
    batch, peer, gaps = make_batch(), network_of(kind), torch.zeros(1, 32, 32, dtype=torch.bool)
    gaps[:, 3:9, 4:20] = True
    batch = with_gaps(batch, gaps)
    forecast = peer.forecast(batch)
    assert torch.equal(forecast.isnan(), batch.target.isnan())
    nrmse(forecast, batch.target).mean().backward()
    assert all(weight.grad.isfinite().all() for weight in peer.network.parameters() if weight.grad is not None)


def test_three_dimensional_data_is_refused():
    batch = make_batch(grid=(4, 16, 16))
    with pytest.raises(Mistake, match="shallow_water has 4 planes; the peers take two-dimensional data only"):
        peer_inputs(batch)


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "neuralop.models", None)
    with pytest.raises(Mistake, match=r"needs neuraloperator: pip install 'matey-pde\[baselines\]'"):
        FourierOperator(2, 1)


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
    ratios = [record.errors["nrmse"] / record.persistence["nrmse"] for record in records]
    assert max(ratios) < 0.9  # these waves pass through rest, where nothing deviates from the mean
