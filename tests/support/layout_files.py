"""Writers of small files in every published layout, with values that tell where they lie."""

import h5py
import numpy as np
from scipy.io import netcdf_file

from tests.support.small_files import write_groups

NUM_X, NUM_Y, NUM_FRAMES = 12, 8, 6
NUM_CHANNELS = {"shallow_water": 1, "diffusion_reaction": 2}


def coded_value(trajectory, t, field, y, x):
    """What the files below hold: differs in every cell of a file and is exact in float32."""
    return ((trajectory * 50 + t) * NUM_Y + y) * NUM_X + x + field * 0.25


def coded(num_fields, num_trajectories=2, num_frames=NUM_FRAMES):
    """Values (n, t, f, y, x)."""
    n, t, f, y, x = np.ogrid[:num_trajectories, :num_frames, :num_fields, :NUM_Y, :NUM_X]
    return coded_value(n, t, f, y, x).astype(np.float32)


def coded_groups(system, num_frames=(11, 11, 11)):
    """Trajectories as a file of groups per seed has them: (t, x, y, f) of shallow water, (t, y, x, f) of the other."""
    values = coded(NUM_CHANNELS[system], len(num_frames), max(num_frames))
    order = (0, 3, 2, 1) if system == "shallow_water" else (0, 2, 3, 1)
    return [own[:frames].transpose(order) for own, frames in zip(values, num_frames, strict=True)]


def write_seed_groups(path, system, num_frames=(11, 11, 11), config=True, data=None):
    """A group per entry of ``num_frames``, or per entry of ``data``."""
    x, y = 0.25 + 0.5 * np.arange(NUM_X), 0.125 + 0.25 * np.arange(NUM_Y)
    compression = "lzf" if system == "diffusion_reaction" else None
    return write_groups(path, system, data or coded_groups(system, num_frames), x, y, 1 / 64, config, compression)


def write_incompressible(path, num_written=NUM_FRAMES - 1, **attributes):
    """Two trajectories, the last frame of which is not written any more."""
    values = coded(3).transpose(0, 1, 4, 3, 2)  # (n, t, x, y, f)
    values[:, num_written:] = np.nan
    with h5py.File(path, "w") as file:
        file.attrs["config"] = "NU: 0.01\nseed: 7\nforce_scale: 0.15\nsim_name: made by a test\n"
        file.attrs.update({"latestIndex": num_written - 1, **attributes})
        file.create_dataset("velocity", data=values[..., :2], chunks=(1, 1, NUM_X, NUM_Y, 2), compression="lzf")
        file.create_dataset("particles", data=values[..., 2:], chunks=(1, 1, NUM_X, NUM_Y, 1), compression="lzf")
        file["force"] = np.zeros((2, NUM_X, NUM_Y, 2), np.float32)
        times = np.where(np.arange(NUM_FRAMES) < num_written, np.arange(NUM_FRAMES) / 64, 0)
        file["t"] = np.stack([times, times]).astype(np.float32)
    return path


def write_compressible(path, turbulent=False):
    """Two trajectories; ``turbulent`` ones start from one density everywhere."""
    values = coded(4).transpose(2, 0, 1, 4, 3)  # (f, n, t, x, y)
    if turbulent:
        values[2, :, 0] = 1
    with h5py.File(path, "w") as file:
        file.attrs.update(M=0.1, eta=0.01, zeta=0.02)
        for name, value in zip(("Vx", "Vy", "density", "pressure"), values, strict=True):
            file[name] = value
        file["x-coordinate"] = (np.arange(NUM_X) + 0.5).astype(np.float32) / 4
        file["y-coordinate"] = (np.arange(NUM_Y) + 0.5).astype(np.float32) / 16
        file["t-coordinate"] = np.arange(NUM_FRAMES + 1, dtype=np.float32) / 32
    return path


def thermals(background=None):
    """Variables of a miniWeather file whose full fields are ``coded``, (name, axes, values)."""
    full = coded(4, 1)[0].astype(np.float64).transpose(1, 0, 2, 3)  # (f, t, z, x)
    if background is not None:
        full[:2] -= background[:, None, :, None]
        yield from (("hy_dens", ("z",), background[0]), ("hy_theta", ("z",), background[1]))
    yield "t", ("t",), np.array([0, 20.5, 40.25, 60.5, 80.25, 100.0])
    for name, values in zip(("dens", "theta", "uwnd", "wwnd"), full, strict=True):
        yield name, ("t", "z", "x"), values


def write_miniweather(path, variables):
    """A classic netCDF file of ``(name, axes, values)``, as big-endian float64 with t as the record dimension."""
    with netcdf_file(path, "w") as file:
        for name, size in (("t", None), ("x", NUM_X), ("z", NUM_Y)):
            file.createDimension(name, size)
        for name, axes, values in variables:
            file.createVariable(name, ">f8", axes)[:] = values
    return path


def write_miniweather_netcdf4(path, variables):
    """The HDF5 that netCDF-4 writes for the same variables, with a scale per dimension."""
    with h5py.File(path, "w") as file:
        variables = {name: (axes, values) for name, axes, values in variables}
        for name, (_, values) in variables.items():
            file[name] = values
        for name, size in (("x", NUM_X), ("z", NUM_Y)):
            file[name] = np.zeros(size, ">f4")
        scales = [name for name in ("t", "x", "z") if name in file]
        for name in scales:
            file[name].make_scale(name)
        for name, (axes, _) in variables.items():
            for number, axis in enumerate(axes if name != "t" else ()):
                if axis in scales:
                    file[name].dims[number].attach_scale(file[axis])
    return path


def write_cavity(path):
    """One trajectory in our own layout."""
    values = coded(4, 1)[0].transpose(0, 2, 3, 1)  # (t, y, x, f)
    with h5py.File(path, "w") as file:
        file.attrs.update(system="mhd_cavity", Bx=0.25, Re=100.0, Re_m=50.0)
        file["velocity"], file["magnetic"] = values[..., :2], values[..., 2:]
        file["x"], file["y"] = np.arange(NUM_X) / 4, np.arange(NUM_Y) / 8
        file["t"] = np.arange(NUM_FRAMES) / 2
    return path


def write_cavity_array(path):
    """The same trajectory as the array of the published layout."""
    np.save(path, coded(4, 1)[0].transpose(0, 2, 3, 1).astype(np.float64))
    return path


def write_the_well(path, dims=("x", "y")):
    """Two trajectories of ``height``, a ``velocity`` and constant or partly constant fields; axes in the order ``dims``."""
    values = coded(3)  # (n, t, f, y, x)
    order = {"x": 4, "y": 3}
    values = values.transpose(0, 1, order[dims[0]], order[dims[1]], 2)  # (n, t, dims, f)
    components = [1 + "xy".index(dim) for dim in dims]
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update(dataset_name="test_flow", grid_type="cartesian", n_spatial_dims=2, n_trajectories=2)
        _well_dimensions(file, dims)
        fields = {
            "t0_fields/height": (values[..., 0], True, True, (True, True)),
            "t0_fields/depth": (values[0, 0, ..., 0], False, False, (True, True)),
            "t0_fields/pressure": (values[0, :, :, 0, 0], False, True, (True, False)),
            "t1_fields/velocity": (values[..., components], True, True, (True, True)),
        }
        for name, (value, sample_varying, time_varying, dim_varying) in fields.items():
            file[name] = value
            file[name].attrs.update(sample_varying=sample_varying, time_varying=time_varying, dim_varying=dim_varying)
        for group, names in (("t0_fields", ["height", "depth", "pressure"]), ("t1_fields", ["velocity"])):
            file[group].attrs["field_names"] = names
        file.create_group("t2_fields").attrs["field_names"] = np.array([], "S1")
    return path


def _well_dimensions(file, dims):
    file.create_group("dimensions").attrs["spatial_dims"] = list(dims)
    spacing = {"x": 0.5, "y": 0.25}
    size = {"x": NUM_X, "y": NUM_Y}
    for dim in dims:
        file[f"dimensions/{dim}"] = np.arange(size[dim], dtype=np.float32) * spacing[dim]
        file[f"dimensions/{dim}"].attrs.update(sample_varying=False, time_varying=False)
    file["dimensions/time"] = np.stack([np.arange(NUM_FRAMES), 2 * np.arange(NUM_FRAMES)]).astype(np.float32) / 8
    file["dimensions/time"].attrs.update(sample_varying=True, time_varying=True)
    for name, dim, kind, ends in (
        ("around", "x", "PERIODIC", [0, -1]),
        ("below", "y", "WALL", [0]),
        ("above", "y", "open", [-1]),
    ):
        mask = np.zeros(size[dim], bool)
        mask[ends] = True
        condition = file.create_group(f"boundary_conditions/{name}")
        condition["mask"] = mask
        condition.attrs.update(associated_dims=[dim], associated_fields=["height"], bc_type=kind)
    file.create_group("scalars").attrs["field_names"] = ["viscosity", "clock"]
    file["scalars/viscosity"] = np.array([0.5, 0.25], np.float32)
    file["scalars/viscosity"].attrs.update(sample_varying=True, time_varying=False)
    file["scalars/clock"] = np.zeros(NUM_FRAMES, np.float32)
    file["scalars/clock"].attrs.update(sample_varying=False, time_varying=True)
