"""Tokens of a micro-batch that are counted box by box."""

import pytest
import torch

from matey.config import load_config
from matey.data.reading import read_windows
from matey.data.trajectories import TrajectorySet
from matey.model.configuration import model_config
from matey.nested import tensors_in
from matey.tokens.tokenize import tokenize
from matey.train import network as sample_layout
from matey.train.network import layout_of, with_vocabulary
from matey.train.run_data import open_data
from tests.support.laws import law

TOKENS = {
    "uniform": {"set": "uniform", "patches": [[1, 1, 8, 8]]},
    "mix": {"set": "mix", "patches": [[1, 1, 8, 8], [1, 1, 4, 4]], "refine": 0.3},
    "threshold": {"set": "mul", "patches": [[1, 1, 8, 8], [1, 1, 4, 4]], "rule": "threshold", "refine": 0.5},
    "raw": {"set": "mix", "patches": [[2, 1, 16, 16], [1, 1, 4, 4]], "values": "raw", "change": 0.5},
    "random": {"set": "mix", "patches": [[1, 1, 8, 8], [1, 1, 4, 4]], "criterion": "random"},
}


@pytest.mark.parametrize("name", TOKENS)
@law("at_once", [1, 2**12, 2**28], quick=[2**12])
def test_tokens_counted_in_boxes_are_those_of_whole_fields(run_yaml, monkeypatch, name, at_once):
    run = load_config(run_yaml(tokens=TOKENS[name], train={"micro_batch": 3}))
    data = open_data(run)
    config = model_config(with_vocabulary(run, data.all_sets))
    windows = data.mixture.global_batch(1, 3)
    expected = tokenize(read_windows(data.mixture.sets, windows, run.data.history), config.patches, config.refinement)
    monkeypatch.setattr(sample_layout, "AT_ONCE", at_once)
    sizes, read = [0], TrajectorySet.read

    def counted(self, *args):
        frames = read(self, *args)
        sizes.append(frames.nbytes)
        return frames

    monkeypatch.setattr(TrajectorySet, "read", counted)
    found = layout_of(run, data, config, 1)
    assert all(map(torch.equal, tensors_in(found), tensors_in(expected.layout)))
    coarsest = 4 * run.data.history * config.patches[0][2] * config.patches[0][3]
    assert max(sizes) <= max(at_once, coarsest)
    assert name != "uniform" or sizes == [0]
