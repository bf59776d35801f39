"""What a model is called with."""

from dataclasses import replace

import pytest
import torch

from matey.model.prepare import micro_batch
from tests.support.models import make_batch, make_model


def test_a_batch_and_a_list_of_batches_are_a_micro_batch():
    batch = make_batch()
    assert micro_batch(batch) == micro_batch([batch]) == micro_batch((batch,)) == [batch]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "got list of none; make one by matey.FieldBatch"),
        (torch.zeros(1, 2, 1, 1, 8, 8), "takes a FieldBatch .* got Tensor; make one"),
        ([torch.zeros(2)], "got list of Tensor"),
        ({"history": 1}, "got dict"),
    ],
)
def test_a_model_says_what_it_takes(given, words):
    with pytest.raises(ValueError, match=words):
        make_model()(given)


def test_predict_takes_a_single_batch_and_says_so():
    model, batch = make_model(), make_batch()
    with pytest.raises(ValueError, match="predict takes one FieldBatch, got list; call the model itself"):
        model.predict([batch])
    with pytest.raises(ValueError, match="got Tensor"):
        model.predict(batch.history)
    assert model.predict(batch).shape == batch.last.shape


def test_a_gradient_of_the_history_is_refused_since_it_would_be_missing():
    model, batch = make_model(), make_batch()
    asked = batch.with_tensors(history=batch.history.clone().requires_grad_())
    with pytest.raises(ValueError, match=r"history requires a gradient, which would be missing.*history.detach\(\)"):
        model(asked)
    assert torch.equal(model.predict(asked), model.predict(batch))


def test_a_batch_that_is_refused_leaves_a_model_in_training():
    model, batch = make_model().train(), make_batch()
    with pytest.raises(ValueError, match="vocabulary"):
        model.predict(replace(batch, fields=("a", "b")[: len(batch.fields)]))
    assert model.training and model.predict(batch).isfinite().all() and model.training
