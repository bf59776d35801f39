"""The summary at the end of forecasts, and series at cells."""

import numpy as np
import torch

import matey
from matey.data import TrajectorySet
from matey.evaluate.forecasts.formats import FORMATS
from matey.evaluate.forecasts.series import cells_of, closing_table, probe
from tests.support.models import make_model


def test_a_bad_value_in_the_truth_leaves_only_its_error_out(tmp_path):
    values = np.random.default_rng(0).normal(3, 1, (2, 5, 8, 8)).astype("f4")
    values[1, -1, 2, 3] = np.inf
    data = TrajectorySet.from_arrays("waves", {"u": values}, spacing=(1, 1), boundary=("wall", "wall"))
    model = make_model(((1, 1, 4, 4),), torch.float32, fields=("u",))
    forecasts = matey.forecast(model, data, steps=3, history=2)
    forecasts.write(tmp_path / "out.h5")
    request = forecasts.request
    file = FORMATS[".h5"].open_file(tmp_path / "out.h5", forecasts.contents, "r")
    assert "VRMSE at step 3" in closing_table(request, file)
    of_bad, of_good = probe(request, file, cells_of(request, [(2, 3), (0, 0)]))[2:]
    assert (
        np.isnan(of_bad.truth[-1]) and np.isfinite(of_bad.truth[:-1]).all() and np.isfinite(of_bad.forecast[2:]).all()
    )
    assert np.isfinite(of_good.truth).all()
    file.close()
