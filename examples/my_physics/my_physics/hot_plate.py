"""Reads a heated plate: an .npz file with the temperature (t, y, x) in kelvin, the size of a cell and the time step."""

from pathlib import Path

import numpy as np

from matey.data.trajectories import Cells, Reader, Trajectory, TrajectorySet


class HotPlate(TrajectorySet):
    system, fields, units = "hot_plate", ("temperature",), ("K",)

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            num_frames, num_y, num_x = file["temperature"].shape
            cell, time_step = float(file["cell"]), float(file["time_step"])
        self.trajectories = (
            Trajectory(
                source=path,
                name=path.stem,
                num_frames=num_frames,
                grid=(1, num_y, num_x),
                spacing=(1.0, cell, cell),
                boundary=("none", "wall", "wall"),
                time_step=time_step,
            ),
        )

    def _read_frames(self, trajectory: int, start: int, stop: int, cells: Cells) -> np.ndarray:
        with np.load(self.trajectories[trajectory].source) as file:
            return file["temperature"][start:stop, None, None, *cells[1:]]  # (t, f, z, y, x)


READER = Reader(
    layout="a hot plate (.npz with 'temperature' (t, y, x), 'cell', 'time_step')",
    suffixes=(".npz",),
    recognises=lambda path: path.suffix == ".npz" and "temperature" in np.load(path),
    open=HotPlate,
)
