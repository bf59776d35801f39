"""Maps ``.npy`` arrays into memory for one read at a time, and explains errors in plain words."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from matey.data.signature import first_bytes
from matey.data.trajectories import DataError
from matey.mistakes import one_line


def map_npy(path: Path) -> np.ndarray:
    """Return an array whose values are read from the file when they are used; drop the array to close the file.

    Raises:
        DataError: the file is missing, unreadable, truncated or corrupt.
    """
    first_bytes(path)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    # Errors that NumPy was seen to raise when the header or the data end too early, or hold Python objects.
    except (OSError, ValueError, EOFError) as error:
        if "Python objects" in str(error):
            raise DataError(
                f"{path} holds Python objects, which are not read; save numbers: array.astype(float)."
            ) from None
        raise DataError(
            f"{path} cannot be read as a NumPy array ({one_line(error)}); it is truncated or corrupt: copy it again."
        ) from error
