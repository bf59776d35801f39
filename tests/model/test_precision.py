"""What bfloat16 weights may round, and what not; and sums are added up in one order."""

import math
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from matey.model.cells import CellsAfter, Reach, Sides
from matey.model.embedding import PatchEmbedding
from matey.model.modules import Rows
from matey.model.sequence_group import SequenceGroup
from matey.train.loss import LossScale, training_loss
from tests.support.models import make_batch, make_model

PATCH, SIZE = (1, 1, 8, 8), 512
FIRST = Rows(torch.tensor([0]), torch.tensor([0]))


def waves():
    """Three smooth waves along each axis of a grid of 512 x 512, ``(1, 1, z, y, x)``, of unit deviation."""
    along = torch.linspace(0, 6 * math.pi, SIZE + 1, dtype=torch.float64)[:-1]
    return (2 * along.sin()[:, None] * along.cos()[None, :])[None, None, None]


def laplacian(sides):
    """The weights of a window that give its Laplacian at the middle; bfloat16 holds them exactly."""
    stencil = torch.zeros(*sides, dtype=torch.float64)
    y, x = (side // 2 for side in sides)
    stencil[y - 1 : y + 2, x] = stencil[y, x - 1 : x + 2] = 1
    stencil[y, x] = -4
    return stencil.flatten()


def of_cells():
    """The part of the cells' change that is linear in a window, a Laplacian, and what it gives of the waves."""
    cells = CellsAfter(Reach.along([PATCH], 1, 1), num_fields=1, width=24, channels=4).double()
    for parameter in cells.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        cells.field_stencil[0, :, 0] = laplacian((5, 5))
    inputs = torch.stack([waves()] * 2, dim=1)  # the last frame, and a change that no weight looks at
    features, conditions = (torch.zeros(*shape, dtype=torch.float64) for shape in ((1, 4, 1, SIZE, SIZE), (1, 24)))
    sides = [Sides(((False, False),) * 3, (True, True, True))]
    return lambda dtype, fields: cells.to(dtype)([inputs.to(fields)], [features.to(dtype)], conditions, [FIRST], sides)


def of_embedding():
    """An embedding of 8 x 8 patches whose first stage takes a Laplacian, and what it gives of the waves."""
    embedding = PatchEmbedding(PATCH, num_fields=1, width=96).double()
    for parameter in embedding.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        embedding.field_weight[0, :, 0] = laplacian(embedding.cells[2:])
        for stage in embedding.stages:
            stage.weight[0, 0] = 1
    patches = waves().unfold(3, 8, 8).unfold(4, 8, 8)[0, 0, 0].flatten(0, 1)[:, None, None, None]
    return lambda dtype, fields: embedding.to(dtype)([patches.to(fields)], [FIRST])


@torch.no_grad()
@pytest.mark.parametrize("made", [of_cells, of_embedding])
def test_bfloat16_weights_difference_cells_in_the_precision_of_the_fields(made):
    compute = made()
    expected = compute(torch.float64, torch.float64)
    kept, lost = (compute(torch.bfloat16, fields).double() for fields in (torch.float32, torch.bfloat16))
    scale = expected.std()
    assert (kept - expected).std() < 0.01 * scale, "rounding of what comes out"
    assert (lost - expected).std() > scale, "were the fields rounded first, nothing would be left"


def in_both_precisions(compute, **settings):
    """Return what ``compute`` finds of a model with the same weights in float32 and in bfloat16."""
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        model = make_model(dtype=torch.float32, parameters=("viscosity",), **settings)
        torch.nn.init.normal_(model.told.contract.weight, std=0.3)
        found.append(compute(model.bfloat16().to(dtype)))
    return found


@pytest.mark.parametrize("told", ["viscosity", "size"])
def test_numbers_that_are_one_in_bfloat16_give_two_forecasts(told):
    sizes = torch.tensor([1e5, 1.002e5] if told == "size" else [1.0, 1.0])[:, None, None, None, None]
    viscosity = torch.tensor([1.02e-3, 1.04e-3] if told == "viscosity" else [1e-3, 1e-3])
    one = make_batch(num_samples=1)
    batch = replace(one, history=one.history * sizes[:, None], lead_time=torch.ones(2).long(), target=None)
    batch = replace(batch, parameters={"viscosity": viscosity})

    def change(model):
        first, second = model.predict(batch) / sizes
        return (second - first).norm()

    wide, half = in_both_precisions(change)
    assert half > wide / 2


def test_gradients_in_bfloat16_are_those_of_float32_with_8192_tokens():
    batch = replace(make_batch(grid=(1, 128, 128), num_samples=1), parameters={"viscosity": torch.tensor(1e-3)})

    def gradients(model):
        assert model.count_tokens(batch).tolist() == [8192]
        training_loss(model([batch]), SequenceGroup(), {"shallow_water": LossScale()})[0].backward()
        return {name: parameter.grad.float() for name, parameter in model.named_parameters()}

    wide, half = in_both_precisions(gradients, patches=((1, 1, 2, 2),), scheme="avit")
    off = {name: ((half[name] - wide[name]).norm() / wide[name].norm()).item() for name in wide}
    assert not {name: value for name, value in off.items() if value > 0.03}


class Indices(TorchDispatchMode):
    """Notes where what is added up at an index has its places."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket is torch.ops.aten.index_put and args[3]:
            self.found.append(torch.stack([index.flatten() for index in args[1] if index is not None], dim=1))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [{}, {"scheme": "avit"}, {"network": "paper"}])
def test_no_gradient_is_added_up_at_an_index_where_threads_may_meet(options):
    loss = make_model(set="mix", **options)(make_batch()).loss
    with Indices() as indices:
        loss.backward()
    assert all(len(index.unique(dim=0)) == len(index) for index in indices.found)
