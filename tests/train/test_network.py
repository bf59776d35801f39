"""Networks that cannot run here, or that suit no data, are refused before anything is computed.

What the command line of a run refuses before PyTorch is imported.

Tokens of a micro-batch that are counted box by box.
"""

import pytest
import torch

from matey.config import ConfigError, load_config
from matey.data import open_dataset
from matey.data.reading import read_windows
from matey.data.trajectories import TrajectorySet
from matey.model.configuration import model_config
from matey.model.nested import tensors_in
from matey.tokens.tokenize import tokenize
from matey.train import network as sample_layout
from matey.train.network import check_attention, check_fit, layout_of, with_vocabulary
from matey.train.run_data import open_data
from tests.support.laws import law


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("backend", ["varlen", "flash_attn"])
def test_an_attention_that_needs_a_gpu_is_refused_without_one(backend):
    with pytest.raises(ConfigError, match=f"model.attention: '{backend}' needs bf16 .* on a GPU .*; use 'auto'"):
        check_attention(backend, is_bf16=True)
    check_attention("auto", is_bf16=False)
    check_attention("grouped", is_bf16=False)


def test_a_patch_that_is_mostly_padding_is_refused_before_weights_are_made_for_it(run_yaml, tmp_path):
    data = [open_dataset(tmp_path / "swe")]
    for cells in (32, 64):
        run = with_vocabulary(load_config(run_yaml(tokens={"set": "uniform", "patches": [[1, 1, cells, 16]]})), data)
        if cells == 32:
            check_fit(model_config(run), data)
        else:
            with pytest.raises(
                ConfigError, match="a patch of 64 cells along y is mostly padding on a grid of 16; lower"
            ):
                check_fit(model_config(run), data)


def test_a_field_that_is_misspelt_or_left_out_of_the_vocabulary_is_named(run_yaml, tmp_path):
    data = [open_dataset(tmp_path / "swe")]
    with pytest.raises(ConfigError, match="names 'water_hight', which no data set holds. Did you mean 'water_height'?"):
        with_vocabulary(load_config(run_yaml(model={"fields": ["density", "water_hight"]})), data)
    with pytest.raises(ConfigError, match="model.fields lacks 'water_height', which shallow_water holds; add it"):
        with_vocabulary(load_config(run_yaml(model={"fields": ["density"]})), data)


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
