"""Rollouts that go on where the truth ends."""

from dataclasses import replace

import pytest
import torch

from matey.data import TrajectorySet
from matey.evaluate.evaluation import Evaluation
from matey.evaluate.rollout import go_beyond, longest_rollout
from matey.report.tables import beyond_table


class Growing:
    """A model whose fields grow by a share of the last frame in every snapshot."""

    device = torch.device("cpu")

    def predict(self, batch):
        return batch.last * 1.001


def test_the_change_of_means_is_followed_beyond_the_truth(held_out):
    assert longest_rollout(held_out) == 10
    beyond = go_beyond(Growing(), held_out, num_true=10, num_steps=100)
    truth, at_end_of_truth, at_end = beyond.drifts["shallow_water", "change of mean water_height"]
    assert at_end_of_truth == pytest.approx(1.001**10 - 1, rel=1e-4)
    assert at_end == pytest.approx(1.001**100 - 1, rel=0.05)  # the size of a step is limited
    assert abs(truth) < 0.01
    assert [system for system, _ in beyond.drifts] == ["shallow_water", *["diffusion_reaction"] * 2]


def test_a_model_that_is_not_of_a_system_has_dashes_there(held_out):
    beyond = go_beyond(Growing(), held_out, num_true=3, num_steps=5)
    first, *others = beyond.drifts
    of_reaction = replace(beyond, drifts={key: beyond.drifts[key] for key in others})
    evaluations = [Evaluation([], [], beyond=each) for each in (of_reaction, beyond)]
    rows = beyond_table(["a", "b"], evaluations).rows
    assert [row[:2] for row in rows] == [*others, first]
    assert rows[-1][3:5] == ("-", "-") and "-" not in (*rows[-1][5:], *rows[0])


def test_a_later_start_gives_a_shorter_history_the_same_last_frame(held_out):
    two, four = replace(held_out, num_frames=2), replace(held_out, num_frames=4)
    later = go_beyond(Growing(), two, num_true=5, num_steps=9, start=2)
    assert later == go_beyond(Growing(), four, num_true=5, num_steps=9)


def test_no_rollout_goes_on_where_nothing_is_known_of_a_forcing(shallow_water, held_out):
    values = {name: shallow_water.read(0, 0, 12)[None, :, 0, 0] for name in ("forcing", "water_height")}
    forced = TrajectorySet.from_arrays(
        "shallow_water",
        {"water_height": values["water_height"]},
        spacing=(1, 1),
        boundary=("open", "open"),
        given={"forcing": values["forcing"]},
    )
    data = replace(held_out, sets=(forced, *held_out.sets[1:]), trajectories=((0,), *held_out.trajectories[1:]))
    beyond = go_beyond(Growing(), data, num_true=10, num_steps=100)
    assert {system for system, _ in beyond.drifts} == {"diffusion_reaction"}
    unaware = replace(data, sets=tuple(each.with_given(()) for each in data.sets))
    assert {system for system, _ in go_beyond(Growing(), unaware, 10, 100).drifts} == {
        "shallow_water",
        "diffusion_reaction",
    }
