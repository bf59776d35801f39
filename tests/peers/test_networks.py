"""The peers by themselves: what each is given, and what it answers."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from matey import FieldBatch
from matey.mistakes import Mistake
from matey.peers.inputs import peer_inputs
from matey.peers.kinds import NETWORKS
from matey.peers.networks import FourierOperator
from tests.support.models import make_batch, network_of


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


def test_three_dimensional_data_is_refused():
    batch = make_batch(grid=(4, 16, 16))
    with pytest.raises(Mistake, match="shallow_water has 4 planes; the peers take two-dimensional data only"):
        peer_inputs(batch)


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "neuralop.models", None)
    with pytest.raises(Mistake, match=r"needs neuraloperator: pip install 'matey-pde\[baselines\]'"):
        FourierOperator(2, 1)
