"""The systems that ``tools/simulate.py`` can make, each by the name that MATEY's reader gives what is in its files."""

from matey.simulate import mhd_cavity, mhd_layout, miniweather_layout, pdebench_box, pdebench_gas, pdebench_groups
from matey.simulate.ensemble import System

SYSTEMS = {
    "shallow_water": System(
        summary="Radial dam break: water depth, waves from a released column, open sides.",
        num_trajectories=1000,
        resolution=128,
        num_frames=101,
        num_values=1,
        solve=pdebench_groups.solve_dam_break,
        layout=pdebench_groups.DAM_BREAK,
    ),
    "diffusion_reaction": System(
        summary="FitzHugh-Nagumo diffusion-reaction: activator and inhibitor, patterns from noise, closed walls.",
        num_trajectories=1000,
        resolution=128,
        num_frames=101,
        num_values=2,
        solve=pdebench_groups.solve_diffusion_reaction,
        layout=pdebench_groups.DIFFUSION_REACTION,
    ),
    "compressible_rand": System(
        summary="Viscous gas: density, pressure and velocity, from random waves of all four, periodic.",
        num_trajectories=10000,
        resolution=128,
        num_frames=21,
        num_values=4,
        solve=pdebench_gas.solve_rand,
        layout=pdebench_gas.gas_layout("Rand"),
        settings={"mach": 0.1, "viscosity": 0.01},
    ),
    "compressible_turb": System(
        summary="Nearly inviscid gas: density, pressure and velocity, from random waves of velocity, periodic.",
        num_trajectories=1000,
        resolution=512,
        num_frames=21,
        num_values=4,
        solve=pdebench_gas.solve_turbulence,
        layout=pdebench_gas.gas_layout("Turb"),
        settings={"mach": 1.0, "viscosity": 1e-8},
    ),
    "incompressible": System(
        summary="Incompressible flow in a closed box: velocity and the tracer on which a static force acts.",
        num_trajectories=1096,
        resolution=512,
        num_frames=1000,
        num_values=3,
        solve=pdebench_box.solve_box,
        layout=pdebench_box.LAYOUT,
        settings={"viscosity": 0.01},
    ),
    "colliding_thermals": System(
        summary="A warm bubble of air meets a cold one: density, temperature and wind, periodic along x, closed along z.",
        num_trajectories=96,
        resolution=256,
        num_frames=51,
        num_values=4,  # twice as long as float32, on half as many cells
        solve=miniweather_layout.solve_thermals,
        layout=miniweather_layout.LAYOUT,
    ),
    "mhd_cavity": System(
        summary="Conducting fluid under a moving lid: velocity and magnetic field, closed and conducting walls.",
        num_trajectories=96,
        resolution=128,
        num_frames=2001,
        num_values=4,
        solve=mhd_layout.solve_cavities,
        layout=mhd_layout.LAYOUT,
        settings={"interval": mhd_cavity.FRAME_INTERVAL},
    ),
}
