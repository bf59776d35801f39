"""Every system that can be simulated, as MATEY's own readers find it on disk, in its own layout and in The Well's."""

from dataclasses import dataclass

import numpy as np
import pytest
from einops import rearrange

from matey.data import open_dataset, split_set
from matey.data.miniweather import neutral_background
from matey.data.splits import Split
from matey.data.to_the_well import write_the_well
from matey.simulate.catalogue import SYSTEMS
from matey.simulate.ensemble import make, solve
from matey.simulate.mhd_cavity import draw_cavity
from matey.simulate.shallow_water import dam_radius
from tests.support.laws import law

SEED, RESOLUTION, NUM_FRAMES = 3, 16, 3
QUICK = ("shallow_water", "compressible_turb", "incompressible", "colliding_thermals", "mhd_cavity")


@dataclass(frozen=True)
class Expected:
    """What the reader shall say; ``axes`` are those of each array of the solver, in the order of the fields."""

    fields: tuple[str, ...]
    arrays: tuple[str, ...]
    axes: str
    size: tuple[float, float]  # of the domain along y, x
    boundary: tuple[str, str]  # along y, x
    time_step: float
    parameters: dict[str, float]


GAS = {
    "fields": ("velocity_x", "velocity_y", "density", "pressure"),
    "arrays": ("Vx", "Vy", "density", "pressure"),
    "axes": "t x y",
    "size": (1, 1),
    "boundary": ("periodic", "periodic"),
    "time_step": 0.05,
}
EXPECTED = {
    "shallow_water": Expected(
        fields=("water_height",),
        arrays=("data",),
        axes="t x y f",
        size=(5, 5),
        boundary=("open", "open"),
        time_step=0.01,
        parameters={"seed": SEED, "gravity": 1, "dam_radius": dam_radius(SEED)},
    ),
    "diffusion_reaction": Expected(
        fields=("activator", "inhibitor"),
        arrays=("data",),
        axes="t y x f",
        size=(2, 2),
        boundary=("no_flux", "no_flux"),
        time_step=0.05,
        parameters={"seed": SEED, "Du": 1e-3, "Dv": 5e-3, "k": 5e-3},
    ),
    "compressible_rand": Expected(**GAS, parameters={"M": 0.1, "eta": 0.01, "zeta": 0.01}),
    "compressible_turb": Expected(**GAS, parameters={"M": 1, "eta": 1e-8, "zeta": 1e-8}),
    "incompressible": Expected(
        fields=("velocity_x", "velocity_y", "tracer"),
        arrays=("velocity", "particles"),
        axes="t x y f",
        size=(1, 1),
        boundary=("wall", "wall"),
        time_step=0.005,
        parameters={"seed": SEED, "NU": 0.01},
    ),
    "colliding_thermals": Expected(
        fields=("density", "potential_temperature", "velocity_x", "velocity_z"),
        arrays=("dens", "theta", "uwnd", "wwnd"),
        axes="t y x",
        size=(1e4, 2e4),
        boundary=("wall", "periodic"),
        time_step=20,
        parameters={},
    ),
    "mhd_cavity": Expected(
        fields=("velocity_x", "velocity_y", "magnetic_x", "magnetic_y"),
        arrays=("velocity", "magnetic"),
        axes="t y x f",
        size=(1, 1),
        boundary=("wall", "wall"),
        time_step=0.01,
        parameters={"Bx": draw_cavity(SEED).field, "Re": 100, "Re_m": draw_cavity(SEED).magnetic_reynolds},
    ),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return a function that writes three trajectories of a system and gives the ensemble and its folder."""
    done = {}

    def write(system):
        if system not in done:
            ensemble = SYSTEMS[system].ensemble(
                num_trajectories=3, resolution=RESOLUTION, num_frames=NUM_FRAMES, first_seed=SEED
            )
            folder = tmp_path_factory.mktemp(system)
            make(folder, ensemble)
            done[system] = ensemble, folder
        return done[system]

    return write


@law("system", SYSTEMS.own, quick=QUICK)
def test_files_say_what_was_simulated(system, written):
    _, folder = written(system)
    data, expected = open_dataset(folder), EXPECTED[system]
    assert (data.system, data.fields, data.num_trajectories) == (system, expected.fields, 3)
    about = data.trajectories[0]
    # The nodes of the cavity lie on its walls, and thermals have half as many cells along z as along x.
    num_y, intervals = {"colliding_thermals": (8, 16), "mhd_cavity": (16, 15)}.get(system, (16, 16))
    height, width = expected.size
    assert (about.num_frames, about.grid) == (NUM_FRAMES, (1, num_y, RESOLUTION))
    assert about.spacing == pytest.approx((1, height / min(num_y, intervals), width / intervals))
    assert about.boundary == ("none", *expected.boundary)
    assert about.time_step == pytest.approx(expected.time_step)
    assert {name: about.parameters.get(name) for name in expected.parameters} == pytest.approx(expected.parameters)


@law("system", SYSTEMS.own, quick=QUICK)
def test_every_cell_comes_back_in_its_place(system, written):
    ensemble, folder = written(system)
    data, expected = open_dataset(folder), EXPECTED[system]
    for index, trajectory in enumerate(solve(ensemble, ensemble.seeds)):
        arrays = [trajectory[name] for name in expected.arrays]
        components = [a if a.ndim == 4 else a[..., None] for a in arrays]
        axes = expected.axes if "f" in expected.axes else f"{expected.axes} f"
        solved = rearrange(np.concatenate(components, axis=-1), f"{axes} -> t f 1 y x")
        if system == "colliding_thermals":
            solved[:, :2] += neutral_background(solved.shape[3])[:, None, :, None]
        np.testing.assert_array_equal(data.read(index, 0, NUM_FRAMES), solved.astype(np.float32))


@law("system", SYSTEMS.own, quick=QUICK)
def test_the_layout_of_the_well_holds_the_same_trajectories(system, written):
    folder = written(system)[1]
    official, out = open_dataset(folder), folder.with_name(f"{folder.name}_well")
    write_the_well(official, Split((0,), (1,), (2,)), out)
    well = open_dataset(out)
    assert (well.system, set(well.fields)) == (official.system, set(official.fields))
    split = split_set(well, (0.8, 0.1, 0.1), seed=0)
    assert [len(part) for part in (split.train, split.valid, split.test)] == [1, 1, 1]
    order = [well.fields.index(name) for name in official.fields]
    for index, found in enumerate((*split.train, *split.valid, *split.test)):
        np.testing.assert_array_equal(well.read(found, 0, 3)[:, order], official.read(index, 0, 3))
        ours, theirs = well.trajectories[found], official.trajectories[index]
        assert ours.spacing == pytest.approx(theirs.spacing) and ours.time_step == pytest.approx(theirs.time_step)
        assert ours.boundary == tuple("wall" if end == "no_flux" else end for end in theirs.boundary)
        for name in ("dam_radius", "Bx", "Re", "Re_m"):
            assert ours.parameters.get(name) == pytest.approx(theirs.parameters.get(name))


@pytest.mark.parametrize("system", ["incompressible", "compressible_turb"])
def test_velocity_x_is_that_along_the_axis_x(system, written):
    """Both start with little divergence; with the axes swapped it would be as large as the gradients."""
    velocity_x, velocity_y = open_dataset(written(system)[1]).read(0, 0, 1)[0, :2, 0].astype(np.float64)
    wanted = divergence(velocity_x, velocity_y)
    swapped = divergence(velocity_x.T, velocity_y.T)
    assert np.square(wanted).mean() < 0.25 * np.square(swapped).mean()


def test_thermals_stand_on_the_ground_with_the_warm_one_below(written):
    density, temperature = open_dataset(written("colliding_thermals")[1]).read(0, 0, 1)[0, :2, 0]
    assert (np.diff(density.mean(axis=1)) < 0).all()
    warmest, coldest = (place(temperature) // RESOLUTION for place in (np.argmax, np.argmin))
    assert warmest < 4 <= coldest


def divergence(velocity_x, velocity_y):
    """Central differences of fields ``(y, x)`` inside the square."""
    along_x = velocity_x[1:-1, 2:] - velocity_x[1:-1, :-2]
    return along_x + velocity_y[2:, 1:-1] - velocity_y[:-2, 1:-1]
