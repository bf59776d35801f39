"""What a write that is broken off leaves, where each trajectory has a file of its own."""

import numpy as np
import pytest

from matey.simulate import mhd_layout, miniweather_layout
from matey.simulate.systems import SYSTEMS


@pytest.mark.parametrize(
    ("system", "layout", "names"),
    [
        ("mhd_cavity", mhd_layout.LAYOUT, ("velocity", "magnetic")),
        ("mhd_cavity", mhd_layout.ARRAYS, ("velocity", "magnetic")),
        ("colliding_thermals", miniweather_layout.LAYOUT, miniweather_layout.VARIABLES),
    ],
)
def test_a_write_that_is_broken_off_leaves_nothing(tmp_path, system, layout, names):
    ensemble = SYSTEMS[system].ensemble(num_trajectories=1, resolution=32, num_frames=2)
    broken = {name: np.full((2, 1, 1, 1)[: 4 if system == "mhd_cavity" else 3], "no numbers") for name in names}
    with pytest.raises((ValueError, TypeError)):
        layout.write(layout.path(tmp_path, 0), ensemble, [0], [broken])
    assert list(tmp_path.iterdir()) == []
