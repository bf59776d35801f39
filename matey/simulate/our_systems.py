"""Our own entries of `matey.simulate.systems.SYSTEMS`: the facts about each, its solver, and the layout of its files."""

from __future__ import annotations

from matey.simulate import mhd_layout, miniweather_layout, pdebench_box, pdebench_gas, pdebench_groups
from matey.simulate.catalogue import CATALOGUE
from matey.simulate.ensemble import Layout, Solve, System


def _system(name: str, solve: Solve, layout: Layout) -> System:
    return System(**vars(CATALOGUE[name]), solve=solve, layout=layout)


SHALLOW_WATER = _system("shallow_water", pdebench_groups.solve_dam_break, pdebench_groups.DAM_BREAK)
DIFFUSION_REACTION = _system(
    "diffusion_reaction", pdebench_groups.solve_diffusion_reaction, pdebench_groups.DIFFUSION_REACTION
)
COMPRESSIBLE_RAND = _system("compressible_rand", pdebench_gas.solve_rand, pdebench_gas.gas_layout("Rand"))
COMPRESSIBLE_TURB = _system("compressible_turb", pdebench_gas.solve_turbulence, pdebench_gas.gas_layout("Turb"))
INCOMPRESSIBLE = _system("incompressible", pdebench_box.solve_box, pdebench_box.LAYOUT)
COLLIDING_THERMALS = _system("colliding_thermals", miniweather_layout.solve_thermals, miniweather_layout.LAYOUT)
MHD_CAVITY = _system("mhd_cavity", mhd_layout.solve_cavities, mhd_layout.LAYOUT)
