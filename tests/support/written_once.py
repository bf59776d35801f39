"""Files that many tests need alike are written once in a process, and copied from memory after that."""

import copy
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory


def written_once(write):
    """Wrap a writer of files at or below a path: for the same further arguments it puts the same bytes there again.

    What it returns is a path at or below the given one, or is copied. With arguments that cannot be compared it writes anew.
    """
    written = {}

    @wraps(write)
    def put(path, *args, **kwargs):
        values = (*args, *kwargs.values())
        key = (path.suffix, tuple(kwargs), values, tuple(map(type, values)))
        try:
            known = key in written
        except TypeError:
            return write(path, *args, **kwargs)
        if not known:
            with TemporaryDirectory() as folder:
                place = Path(folder) / path.name
                result = write(place, *args, **kwargs)
                files = [place] if place.is_file() else [each for each in place.rglob("*") if each.is_file()]
                contents = {each.relative_to(place): each.read_bytes() for each in files}
                written[key] = (result.relative_to(place) if isinstance(result, Path) else result), contents
        result, contents = written[key]
        for name, content in contents.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        return path / result if isinstance(result, Path) else copy.deepcopy(result)

    return put
