"""Data sets at a glance."""

import numpy as np
import pytest

from matey.data import TrajectorySet
from matey.report.contact_sheet import contact_sheet, first_readable
from matey.report.pictures import to_png


@pytest.mark.parametrize("text", [r"$\unit{m/s}$", "US$ per $", r"$\frac{kg}{m^3$"])
def test_units_and_names_with_dollars_are_shown_as_they_are(text):
    values = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype("f4")
    data = TrajectorySet.from_arrays(
        f"waves {text}", {text: values}, spacing=(1, 1), boundary=("wall", "wall"), units={text: text}
    )
    figure = contact_sheet([first_readable(data)])
    assert to_png(figure).startswith(b"\x89PNG")
    label = figure.axes[0].yaxis.label
    shown, is_formula = label._preprocess_math(label.get_text())
    assert (shown, is_formula) == (f"{text}\n[{text}]", False)
