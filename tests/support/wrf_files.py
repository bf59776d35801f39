"""Files as the weather model WRF writes them: staggered winds, times as characters, no coordinates but attributes."""

from datetime import datetime, timedelta

import netCDF4
import numpy as np

from tests.support.written_once import written_once

NUM_Z, NUM_Y, NUM_X = 6, 8, 12
START, STEP = datetime(2000, 1, 24, 12), timedelta(hours=3)
FIELDS = {"P": "Pa", "PB": "Pa", "T": "K"}
WINDS = {"U": "west_east", "V": "south_north", "W": "bottom_top"}
GRID = {"bottom_top": NUM_Z, "south_north": NUM_Y, "west_east": NUM_X}


def name_of(number):
    """The name of the file of a snapshot, which has no ending."""
    return f"wrfout_d01_{START + number * STEP:%Y-%m-%d_%H:%M:%S}"


@written_once
def write_wrf(path, first=0, num_frames=4, kind="NETCDF4", minutes=True):
    """Write snapshots, beginning with one; return the values of the fields and winds."""
    with netCDF4.Dataset(path, "w", format=kind) as file:
        file.createDimension("Time", None)
        file.createDimension("DateStrLen", 19)
        for axis, size in GRID.items():
            file.createDimension(axis, size)
            file.createDimension(f"{axis}_stag", size + 1)
        file.setncatts({"TITLE": " OUTPUT FROM WRF", "DX": np.float32(30000), "DY": np.float32(30000)})
        file.setncatts({f"SCHEME_{number}": np.int32(number) for number in range(20)})
        numbers = range(first, first + num_frames)
        times = file.createVariable("Times", "S1", ("Time", "DateStrLen"))
        times[:] = np.array([[*f"{START + number * STEP:%Y-%m-%d_%H:%M:%S}"] for number in numbers], "S1")
        if minutes:
            since = file.createVariable("XTIME", "f4", ("Time",))
            since.units = f"minutes since {START}"
            since[:] = [number * STEP.total_seconds() / 60 for number in numbers]
        file.createVariable("ITIMESTEP", "i4", ("Time",))[:] = [60 * number for number in numbers]
        places = ("Time", "south_north", "west_east")
        for name in ("XLAT", "XLONG", "PSFC"):
            file.createVariable(name, "f4", places)[:] = np.ones((num_frames, NUM_Y, NUM_X))
        for name in ("XLAT_U", "XLONG_U"):
            edges = (*places[:2], "west_east_stag")
            file.createVariable(name, "f4", edges)[:] = np.ones((num_frames, NUM_Y, NUM_X + 1))
        values = {}
        for name in (*FIELDS, *WINDS):
            axes = [f"{axis}_stag" if axis == WINDS.get(name) else axis for axis in GRID]
            variable = file.createVariable(name, "f4", ("Time", *axes))
            variable.coordinates = "XLONG_U XLAT_U XTIME" if name == "U" else "XLONG XLAT XTIME"
            shape = [file.dimensions[axis].size for axis in axes]
            of_frames = [np.random.default_rng([number, ord(name[0])]).normal(size=shape) for number in numbers]
            values[name] = variable[:] = np.stack(of_frames).astype("f4")
    return values
