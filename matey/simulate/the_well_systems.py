"""What The Well's layout says of each system: its axes, its ends, and its fields with x before y."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from matey.simulate import compressible, mhd_cavity, pdebench_box, reaction_diffusion, shallow_water, thermals
from matey.simulate.ensemble import Ensemble, Trajectory
from matey.simulate.stratified_flow import HEIGHT, THETA, WIDTH, Slice, background_density
from matey.simulate.the_well_layout import Contents, WellLayout

UNIT = ((0.0, 1.0), (0.0, 1.0))


def _square(half_width: float) -> tuple[tuple[float, float], tuple[float, float]]:
    return ((-half_width, half_width), (-half_width, half_width))


def _diffusion_reaction(trajectory: Trajectory) -> Mapping[str, np.ndarray]:
    activator, inhibitor = trajectory["data"].transpose(3, 0, 2, 1)  # (f, t, x, y)
    return {"activator": activator, "inhibitor": inhibitor}


def _gas(trajectory: Trajectory) -> Mapping[str, np.ndarray]:
    velocity = np.stack([trajectory["Vx"], trajectory["Vy"]], axis=-1)
    return {"density": trajectory["density"], "pressure": trajectory["pressure"], "velocity": velocity}


def _thermals(trajectory: Trajectory) -> Mapping[str, np.ndarray]:
    """Return full fields, since a reader of The Well knows no background."""
    num_z, num_x = trajectory["dens"].shape[1:]
    density = trajectory["dens"] + background_density(Slice(num_z, num_x).z_centres()).numpy()[:, None]
    wind = np.stack([trajectory["uwnd"], trajectory["wwnd"]], axis=-1)
    fields = {"density": density, "potential_temperature": trajectory["theta"] + THETA, "velocity": wind}
    return {name: values.swapaxes(1, 2) for name, values in fields.items()}  # (t, x, z, component)


def _cavity_parameters(seed: int) -> dict[str, float]:
    cavity = mhd_cavity.draw_cavity(seed)
    return {"Bx": cavity.field, "Re": cavity.reynolds, "Re_m": cavity.magnetic_reynolds}


def _every(interval: float) -> Callable[[Ensemble], float]:
    return lambda ensemble: interval


GAS = Contents(
    axes=("x", "y"),
    ends=UNIT,
    boundary=("PERIODIC", "PERIODIC"),
    fields=_gas,
    scalars=("density", "pressure"),
    vectors=("velocity",),
    interval=_every(compressible.FRAME_INTERVAL),
)
CONTENTS = {
    "shallow_water": Contents(
        axes=("x", "y"),
        ends=_square(shallow_water.HALF_WIDTH),
        boundary=("OPEN", "OPEN"),
        fields=lambda trajectory: {"water_height": trajectory["data"][..., 0]},
        scalars=("water_height",),
        vectors=(),
        interval=_every(shallow_water.FRAME_INTERVAL),
        parameters=lambda seed: {"dam_radius": shallow_water.dam_radius(seed)},
    ),
    "diffusion_reaction": Contents(
        axes=("x", "y"),
        ends=_square(reaction_diffusion.HALF_WIDTH),
        boundary=("WALL", "WALL"),
        fields=_diffusion_reaction,
        scalars=("activator", "inhibitor"),
        vectors=(),
        interval=_every(reaction_diffusion.FRAME_INTERVAL),
    ),
    "compressible_rand": GAS,
    "compressible_turb": GAS,
    "incompressible": Contents(
        axes=("x", "y"),
        ends=UNIT,
        boundary=("WALL", "WALL"),
        fields=lambda trajectory: {"tracer": trajectory["particles"][..., 0], "velocity": trajectory["velocity"]},
        scalars=("tracer",),
        vectors=("velocity",),
        interval=_every(pdebench_box.FRAME_INTERVAL),
    ),
    "colliding_thermals": Contents(
        axes=("x", "z"),
        ends=((0.0, WIDTH), (0.0, HEIGHT)),
        boundary=("PERIODIC", "WALL"),
        fields=_thermals,
        scalars=("density", "potential_temperature"),
        vectors=("velocity",),
        interval=_every(thermals.FRAME_INTERVAL),
        aspect=(1.0, 0.5),
    ),
    "mhd_cavity": Contents(
        axes=("x", "y"),
        ends=_square(mhd_cavity.HALF_WIDTH),
        boundary=("WALL", "WALL"),
        fields=lambda trajectory: {name: values.swapaxes(1, 2) for name, values in trajectory.items()},
        scalars=(),
        vectors=("velocity", "magnetic"),
        interval=lambda ensemble: ensemble.settings["interval"],
        parameters=_cavity_parameters,
        on_walls=True,
    ),
}
LAYOUTS = {system: WellLayout(system, contents) for system, contents in CONTENTS.items()}
