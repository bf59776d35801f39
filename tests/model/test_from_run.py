"""The network of a run: what its YAML does not say comes from the pretrained model."""

from matey import MateyConfig
from matey.config import load_config
from matey.model.from_run import FIXED, model_config, with_network_of


def test_what_the_yaml_cannot_say_is_as_in_the_pretrained_model(run_yaml):
    unusual = {"mlp_ratio": 3.0, "halo": 1, "overlap": 1, "num_wavelengths": 8, "longest_lead": 64.0}
    assert {"normalisation", *unusual} == set(FIXED)
    pretrained = MateyConfig.from_size("micro", fields=("water_height",), **unusual)
    run = with_network_of(load_config(run_yaml(model={"size": "micro", "fields": ["water_height"]})), pretrained)
    config = model_config(run, pretrained)
    assert {name: getattr(config, name) for name in unusual} == unusual
    assert (config.width, config.history, config.token_set) == (pretrained.width, 2, "mix")
