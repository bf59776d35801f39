"""A peer beside MATEY in one evaluation, through the command."""

import json

import pytest
import torch

from matey.checkpoints.peer_folder import write_peer
from matey.config import dump_config, load_config
from matey.data.split_record import seen_text
from matey.peers.kinds import PeerFacts, untrained
from matey.train.run_data import open_data
from tests.support.models import PATCHES, make_model
from tests.support.small_files import write_waves

SYSTEMS = ("shallow_water", "diffusion_reaction")


@pytest.mark.whole
def test_a_peer_stands_beside_matey_on_the_same_windows(tmp_path, run_here):
    sets = [{"path": str(write_waves(tmp_path / name, name, num_trajectories=10, num_frames=14))} for name in SYSTEMS]
    run = load_config("launch/runs/demo.yaml", [f"data.sets={json.dumps(sets)}", "data.lead_max=3"])
    waves, peer, data = tmp_path / "waves", tmp_path / "peer", open_data(run)
    make_model(PATCHES, torch.float32).save_pretrained(waves / "model")
    (waves / "config.yaml").write_text(dump_config(run))
    peer.mkdir()
    facts = PeerFacts(kind="small U", system=SYSTEMS[0], fields=("water_height",), history=2, lead_max=3)
    seen = seen_text(data.prints, [split.train for split in data.splits])
    write_peer(peer, untrained("small U", 2, 1), facts, data.record, seen)
    how = ["--leads", "1", "--rollout", "2", "--max-windows", "4", "--out", tmp_path / "out"]
    status, out, error = run_here("launch/evaluate.py", "--checkpoint", waves, peer, *how)
    assert status == 0 and "Trained on one system alone, and not scored on the others: peer." in out, error
    of_waves, of_peer = (
        json.loads((tmp_path / "out" / each / "metrics.json").read_text()) for each in ("waves", "peer")
    )
    shared = ("field", "kind", "lead", "num_windows", "persistence_nrmse", "extrapolation_nrmse")
    expected = [[r[key] for key in shared] for r in of_waves if r["system"] == SYSTEMS[0]]
    assert [[record[key] for key in shared] for record in of_peer] == expected
    assert {record["seams"] for record in of_peer} == {None} and of_peer[0]["nrmse"] != of_waves[0]["nrmse"]
    (peer / "peer.safetensors").unlink()
    status, _, error = run_here("launch/evaluate.py", "--checkpoint", waves, peer, *how)
    assert status == 2 and "cannot be used: No such file" in error
