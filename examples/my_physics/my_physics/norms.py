"""Trains the norms and what decodes: a few parameters, which shift and scale what the blocks know."""

from matey.model.parts import OUTPUT, part_of


def norms(model, settings):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("norm" in name or part_of(name) in OUTPUT)
