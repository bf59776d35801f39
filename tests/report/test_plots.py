from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.collections import PatchCollection

from matey.evaluate.records import Record
from matey.evaluate.spectra import Spectra
from matey.report import plots
from matey.report.pictures import to_png
from matey.tokens.refinement import Refinement
from matey.tokens.tokenize import tokenize
from tests.support.models import make_batch


def pictures(figure):
    return [image for axes in figure.axes for image in axes.images]


def curve(axes, label):
    (line,) = (line for line in axes.lines if line.get_label() == label)
    return line


def rollout_records(errors, persistence, system="gas", kind="rollout"):
    return [
        Record(system, "all", kind, step + 1, {"vrmse": error}, {"vrmse": other}, 1, extrapolation_vrmse=other)
        for step, (error, other) in enumerate(zip(errors, persistence, strict=True))
    ]


def test_truth_and_prediction_share_their_colours_and_the_error_is_symmetric(evaluation):
    for example in evaluation.examples[::3]:  # one of each system
        shown = pictures(plots.forecast_figure(example))
        assert len(shown) == 4 * len(example.batch.fields)
        for row, target in enumerate(example.batch.target[0]):
            last, truth, prediction, error = shown[4 * row : 4 * row + 4]
            assert last.get_clim() == truth.get_clim() == prediction.get_clim() == (target.min(), target.max())
            low, high = error.get_clim()
            assert low == -high < 0


def test_x_runs_to_the_right_and_y_upwards(evaluation):
    example = evaluation.examples[0]
    history = example.batch.history.clone()
    history[0, -1, 0, 0, 0, 15] = 99.0  # the lower right corner
    image = pictures(plots.forecast_figure(replace(example, batch=replace(example.batch, history=history))))[0]
    assert image.origin == "lower"
    assert np.argwhere(image.get_array() == 99).tolist() == [[0, 15]]
    assert image.get_extent() == pytest.approx([0, 1, 0, 1])


def test_the_mesh_covers_the_domain_once_with_the_tokens_of_the_last_frame(evaluation):
    examples = evaluation.examples[:3]
    figure = plots.mesh_figure(examples)
    for axes, example in zip(figure.axes, examples, strict=True):
        outlines = [c for c in axes.collections if isinstance(c, PatchCollection)]
        boxes = [path.get_extents() for outline in outlines for path in outline.get_paths()]
        assert len(boxes) == int(example.layout.is_last.sum())
        assert sum(box.width * box.height for box in boxes) == pytest.approx(1.0)
        assert f"{example.layout.num_tokens} of {example.num_uniform_tokens} tokens" in axes.get_title()
    assert {round(box.width, 6) for box in boxes} == {0.5, 0.25}


def test_a_rollout_is_drawn_beside_persistence():
    figure = plots.rollout_figure(rollout_records([0.1, 0.2], [0.3, 0.5]))
    (axes,) = figure.axes
    assert curve(axes, "MATEY").get_ydata().tolist() == [0.1, 0.2]
    assert curve(axes, "persistence").get_ydata().tolist() == [0.3, 0.5]
    assert axes.get_yscale() == "log" and "VRMSE" in axes.get_ylabel()


def test_spectra_have_a_panel_for_each_field_and_leave_out_what_blew_up():
    power = torch.tensor([[1.0, 0.1], [2.0, 0.2]])
    whole = Spectra("gas", ("density", "pressure"), "rollout", 9, torch.tensor([1.0, 2.0]), power, power, power / 10)
    blown = replace(whole, kind="rollout by 5", forecast=power * torch.nan, error=power * torch.inf)
    figure = plots.spectra_figure([whole, blown])
    assert [axes.get_title() for axes in figure.axes] == ["density", "pressure"]
    assert curve(figure.axes[1], "MATEY").get_ydata().tolist() == pytest.approx([2.0, 0.2])
    assert np.isnan(curve(figure.axes[1], "error of MATEY by 5").get_ydata()).all()
    assert to_png(figure).startswith(b"\x89PNG")


def test_a_rollout_that_blows_up_hides_nothing_and_can_be_drawn():
    figure = plots.rollout_figure(rollout_records([0.1, 1e9, float("inf"), float("nan")], [0.3] * 4))
    assert figure.axes[0].get_yscale() == "log"
    assert to_png(figure).startswith(b"\x89PNG")


def test_curves_of_training_leave_out_systems_that_a_step_did_not_see():
    log = [
        {"step": 1, "loss": 0.4, "loss_by_system": {"gas": 0.4}},
        {"step": 2, "loss": 0.3, "loss_by_system": {"gas": 0.2, "plasma": 0.4}},
        {"step": 2, "valid_vrmse": 0.3, "valid_vrmse_by_system": {"gas": 0.2, "plasma": 0.4}},
    ]
    loss, validation = plots.training_figure(log).axes
    assert curve(loss, "plasma").get_xdata().tolist() == [2]
    assert curve(loss, "all that are trained on").get_xdata().tolist() == [1, 2]
    assert curve(validation, "gas").get_ydata().tolist() == [0.2]


def in_space(example):
    """An example like another on a grid of 8 x 16 x 16 cells whose corner is refined."""
    batch = make_batch(num_samples=1, grid=(8, 16, 16))
    batch = replace(batch, target=batch.last, spacing=(1.0, 0.5, 0.25))
    patches = ((1, 8, 8, 8), (1, 4, 4, 4))
    layout = tokenize([batch], patches, Refinement("budget", 22)).layout
    return replace(example, batch=batch, prediction=batch.last[0], units=("1",), layout=layout, patches=patches)


def test_in_space_the_middle_plane_is_drawn_and_the_mesh_covers_it(evaluation):
    example = in_space(evaluation.examples[0])
    image = pictures(plots.forecast_figure(example))[0]
    assert image.get_array().shape == (16, 16) and image.get_extent() == [0, 4, 0, 8]
    (axes,) = plots.mesh_figure([example]).axes
    boxes = [path.get_extents() for outline in axes.collections for path in outline.get_paths()]
    assert sum(box.width * box.height for box in boxes) == pytest.approx(32)
