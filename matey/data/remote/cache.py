"""Caches remote files on this machine: files in blocks, and the chunks of Zarr stores whole.

Each version of a file (size, etag and modification time) has a folder with a file for each block. A block is moved into place
when it is whole, so that ranks and workers can share it. Nothing is ever removed.
"""

from __future__ import annotations

import gc
import hashlib
import io
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from matey.data.remote.server import ZARR_METADATA, about, existing, fetched, has_changed, listing, system_of
from matey.data.trajectory import DataError

BLOCK = 2**16  # fewest bytes of one request: headers lie all over an HDF5 file
MOST_AT_ONCE = 2**25  # most bytes of one request
_NUMBERS = re.compile(r"(?:/[0-9.]+)*$")


@contextmanager
def _no_garbage_is_collected() -> Iterator[None]:
    """Switch Python's garbage collection off while HDF5 waits for bytes.

    The thread that reads holds h5py's lock meanwhile. A thread of fsspec, which fetches the bytes, would wait for that lock for
    ever if its garbage collection found an HDF5 object.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class RemoteFile(io.RawIOBase):
    """A remote file with the interface of Python's files; it holds nothing that processes must not share."""

    def __init__(self, url: str) -> None:
        found = existing(url)
        self._url, self._size, self._place, self._version = url, found.size, 0, found.version
        self._folder = cache_folder() / name_of(url, found.version)

    def __repr__(self) -> str:
        """Return the address, by which HDF5 and messages name the file."""
        return self._url

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte, counted from the beginning, from here or from the end."""
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401
        """Fill a buffer as far as the file goes, and return the number of bytes."""
        view = memoryview(buffer).cast("B")
        start, stop = self._place, min(self._place + len(view), self._size)
        while self._place < stop:
            number, first = divmod(self._place, BLOCK)
            block = self._block(number, stop)[first : first + stop - self._place]
            view[self._place - start : self._place - start + len(block)] = block
            self._place += len(block)
        return max(0, stop - start)

    def _block(self, number: int, stop: int) -> bytes:
        """Return a block; if it is missing, one request fetches it with those after it up to the byte ``stop``."""
        return kept(self._at(number), lambda: self._fetch(number, stop))

    def _fetch(self, number: int, stop: int) -> bytes:
        last = min(-(-stop // BLOCK), number + MOST_AT_ONCE // BLOCK)
        end = next((later for later in range(number + 1, last) if self._at(later).exists()), last)
        first, after = number * BLOCK, min(end * BLOCK, self._size)
        try:
            with _no_garbage_is_collected():
                content = fetched(self._url, first, after)
                # Asked after the bytes, so that they are of the version before.
                changed = has_changed(self._url, self._version)
        except FileNotFoundError:
            content, changed = b"", True
        if len(content) != after - first:
            raise DataError(
                f"{self._url}: asked for the bytes {first:,} to {after - 1:,}, the server sent {len(content):,} bytes; "
                "the file has changed or gone: start again."
            )
        if changed:
            raise DataError(f"{self._url} has changed or gone since it was opened: start again.")
        blocks = [content[begin : begin + BLOCK] for begin in range(0, len(content), BLOCK)]
        for later, block in enumerate(blocks[1:], start=number + 1):
            kept(self._at(later), partial(bytes, block))
        return blocks[0]

    def _at(self, number: int) -> Path:
        return self._folder / str(number // 1000) / str(number)


def zarr_store(root: str) -> Any:  # noqa: ANN401
    """Return a store for the zarr package, whose chunks are fetched as they are read."""
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
    from fsspec.spec import AbstractFileSystem
    from zarr.storage import FsspecStore

    system, path_of_root = system_of(root)

    class Chunks(AbstractFileSystem):  # type: ignore[misc]  # untyped
        """The store's folder; chunks that were read are kept."""

        cachable = False

        def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:  # noqa: ANN401
            url = system.unstrip_protocol(path)
            if start is None and end is None:
                return kept(cache_folder() / name_of(*_versions(url)) / name_of(path), lambda: fetched(url))
            file = RemoteFile(url)  # a part of a shard
            first, stop, _step = slice(start, end).indices(file.seek(0, os.SEEK_END))
            file.seek(first)
            return file.read(stop - first) or b""

        def info(self, path: str, **_: Any) -> dict[str, Any]:  # noqa: ANN401
            if (found := about(system.unstrip_protocol(path))) is None:
                raise FileNotFoundError(path)
            return {"name": path, "size": found.size, "type": "directory" if found.is_folder else "file"}

        def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:  # noqa: ANN401
            names = [system._strip_protocol(url) for url in listing(system.unstrip_protocol(path), "ls")]
            return [self.info(name) for name in names] if detail else names

    return FsspecStore(AsyncFileSystemWrapper(Chunks(), asynchronous=True), read_only=True, path=path_of_root)


def _versions(url: str) -> list[str]:
    """Return the address of an array's or a group's folder and the versions of its metadata, for a file of a Zarr store in it.

    Chunks that are written anew under the same metadata count as the same: to ask for the version of each would double the
    requests.
    """
    folder, _, name = url.rpartition("/")
    if name not in ZARR_METADATA:
        numbers = _NUMBERS.findall(url)[
            0
        ]  # of a chunk: /0.1.2, /0/1/2, those after /c, or none after the /c of a scalar
        folder = url.removesuffix(numbers)
        names = (
            folder,
            folder.removesuffix("/c"),
            folder + "/".join(numbers.split("/")[:2]),
        )  # an array's name may be one
        folder = next((each for each in names if about(f"{each}/.zarray") or about(f"{each}/zarr.json")), folder)
    found = (about(f"{folder}/{mark}") for mark in ZARR_METADATA)
    return [folder, *(mark.version for mark in found if mark)]


def kept(file: Path, fetch: Callable[[], bytes]) -> bytes:
    """Return the content of a file in the cache, which is fetched first if it is missing."""
    try:
        return file.read_bytes()
    except OSError:
        content = fetch()
    new = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(content)
        new.replace(file)
    except OSError as error:
        with suppress(OSError):  # an incomplete file, on a full disk
            new.unlink()
        raise DataError(
            f"{file.parent} cannot keep what is fetched ({error.strerror}); make room, or name another folder: XDG_CACHE_HOME."
        ) from None
    return content


def cache_folder() -> Path:
    """Return the folder of the cache: ``matey`` in the user's folder of caches, which XDG_CACHE_HOME names."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "matey"


def name_of(*texts: str) -> str:
    """Return a name of 32 letters and digits that stands for some texts."""
    return hashlib.blake2b("\n".join(texts).encode(), digest_size=16).hexdigest()
