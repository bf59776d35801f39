"""Networks that cannot run here, or that suit no data, are refused before anything is computed.

What the command line of a run refuses before PyTorch is imported.
"""

import pytest
import torch

from matey.config import ConfigError, load_config
from matey.data import open_dataset
from matey.model.configuration import model_config
from matey.train.network import check_attention, check_fit, with_vocabulary


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
