"""The systems that ``tools/simulate.py`` can make, each by the name that MATEY's reader gives what is in its files."""

from __future__ import annotations

from matey.simulate import mhd_layout, miniweather_layout, pdebench_box, pdebench_gas, pdebench_groups
from matey.simulate.catalogue import CATALOGUE
from matey.simulate.ensemble import Layout, Solve, System

_SOLVED_AND_WRITTEN_BY: dict[str, tuple[Solve, Layout]] = {
    "shallow_water": (pdebench_groups.solve_dam_break, pdebench_groups.DAM_BREAK),
    "diffusion_reaction": (pdebench_groups.solve_diffusion_reaction, pdebench_groups.DIFFUSION_REACTION),
    "compressible_rand": (pdebench_gas.solve_rand, pdebench_gas.gas_layout("Rand")),
    "compressible_turb": (pdebench_gas.solve_turbulence, pdebench_gas.gas_layout("Turb")),
    "incompressible": (pdebench_box.solve_box, pdebench_box.LAYOUT),
    "colliding_thermals": (miniweather_layout.solve_thermals, miniweather_layout.LAYOUT),
    "mhd_cavity": (mhd_layout.solve_cavities, mhd_layout.LAYOUT),
}
SYSTEMS = {
    name: System(**vars(CATALOGUE[name]), solve=solve, layout=layout)
    for name, (solve, layout) in _SOLVED_AND_WRITTEN_BY.items()
}
