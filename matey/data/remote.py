"""Data on other machines: paths such as ``https://host/data.h5`` and ``s3://bucket/set.zarr``, which can stand for any path.

fsspec asks the servers and fetches what is read: parts of files, of which it holds the latest in memory, and chunks of Zarr
stores. Nothing is kept on this machine.
"""

from __future__ import annotations

import gc
import glob
import hashlib
import io
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PosixPath, PurePosixPath
from typing import Any, NoReturn

from matey.config import DataSection
from matey.mistakes import DataError

ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray")
"""Files by which a folder is known as a Zarr store."""
ZARR_METADATA = (*ZARR_MARKS, ".zmetadata", ".zattrs")
"""Files of a Zarr store that are no chunks."""

_CLOSED = (401, 403, 404, 410)  # answers of web servers about files that are not there, or not for everyone
_WEB = ("http://", "https://")
_CONNECT, _SILENCE = 20, 60  # seconds until a server that does not answer counts as unreachable


@dataclass(frozen=True)
class About:
    """A server's answer about a path: its kind, and its size in bytes."""

    is_folder: bool
    size: int = 0


@cache
def about(url: str) -> About | None:
    """Ask about a path, once in the life of this process; None if nothing is there, or nothing that this user may read."""
    system, path = system_of(url)
    try:
        return _understood(url, system.info(path))
    except (FileNotFoundError, PermissionError) as error:
        if (cause := error.__cause__) is not None and getattr(cause, "status", None) not in _CLOSED:
            _unreachable(url, cause)  # fsspec reports web servers that do not answer as not found
    except Exception as error:  # raised by any library below fsspec
        _unreachable(url, error)
    # An object store behind a web server has no folders.
    is_store = PurePosixPath(url).suffix == ".zarr" and any(about(f"{url}/{mark}") for mark in ZARR_MARKS)
    return About(is_folder=True) if is_store else None


def existing(url: str) -> About:
    """Ask about a path that has to exist.

    Raises:
        DataError: nothing is there, or the server cannot be reached.
    """
    found = about(url)
    if found is None:
        raise DataError(f"{url} does not exist, or is not open to you; check the address.")
    return found


def listing(url: str, kind: str, **options: bool) -> Iterator[str]:
    """Yield the addresses that ``ls``, ``find`` or ``glob`` of the file system finds; none where nothing is there."""
    system, path = system_of(url)
    try:
        found = getattr(system, kind)(path, **options)
    except FileNotFoundError:
        return
    except Exception as error:  # raised by any library below fsspec
        _unreachable(url, error)
    for item in found:
        name = item["name"] if isinstance(item, dict) else item
        yield system.unstrip_protocol(name).rstrip("/")


def system_of(url: str) -> tuple[Any, str]:
    """Return the file system of a path, which fsspec makes once for each process, and the path in it."""
    from fsspec.core import url_to_fs

    if "::" in url:
        raise DataError(
            f"{url} is a chain of addresses, which is not followed; give the address of the file or folder itself."
        )
    try:
        return url_to_fs(url, **_options(url))
    except ImportError as error:
        raise DataError(f"{url}: {error}; for data on other machines: pip install 'matey-pde[remote]'.") from None
    except ValueError as error:
        raise DataError(f"{url} is of no protocol that fsspec knows ({error}).") from None
    except Exception as error:  # raised by any file system of fsspec that needs more than an address
        _unreachable(url, error)


def _options(url: str) -> dict[str, Any]:
    """Return the options of fsspec's file system."""
    if not url.startswith(_WEB):
        return {}
    from aiohttp import ClientTimeout

    return {"client_kwargs": {"timeout": ClientTimeout(sock_connect=_CONNECT, sock_read=_SILENCE), "trust_env": True}}


def _understood(url: str, info: dict[str, Any]) -> About:
    """Return what a server's answer says; a web page stands for a folder."""
    is_folder = info.get("type") == "directory" or str(info.get("mimetype")) == "text/html"
    if info.get("size") is None and not is_folder:
        raise DataError(f"{url}: the server does not say how long the file is; download it.")
    return About(is_folder, int(info.get("size") or 0))


def _unreachable(url: str, error: BaseException) -> NoReturn:
    if isinstance(error, DataError):
        raise error
    reason = " ".join(str(error).split())[:200]
    raise DataError(
        f"{url} cannot be reached ({type(error).__name__}{f': {reason}' if reason else ''}); check network, address and your "
        "access to it, or name a copy on this machine."
    ) from error


# Bytes of one request, as headers lie all over an HDF5 file, and blocks of a file that are held in memory.
BLOCK, NUM_BLOCKS = 2**18, 64


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
    """A remote file with the interface of Python's files."""

    def __init__(self, url: str) -> None:
        found, (system, path) = existing(url), system_of(url)
        known = {"size": found.size} if url.startswith(_WEB) else {}  # then fsspec notices if no parts are sent
        self._url = url
        self._file = system.open(
            path, block_size=BLOCK, cache_type="blockcache", cache_options={"maxblocks": NUM_BLOCKS}, **known
        )

    def __repr__(self) -> str:
        """Return the address, by which HDF5 and messages name the file."""
        return self._url

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte, counted from the beginning, from here or from the end."""
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401
        """Fill a buffer as far as the file goes, and return the number of bytes."""
        try:
            with _no_garbage_is_collected():
                return self._file.readinto(buffer)
        except Exception as error:  # raised by any library below fsspec
            _unreachable(self._url, error)


def zarr_store(root: str) -> Any:  # noqa: ANN401
    """Return a store for the zarr package, whose chunks are fetched as they are read."""
    from zarr.storage import FsspecStore

    existing(root)
    return FsspecStore.from_url(root, storage_options=_options(root), read_only=True)


def place(path: str | Path) -> Path:
    """Return a user's path, which is remote if it names a protocol."""
    text = str(path)
    return RemotePath(text) if "://" in text and not text.startswith("file://") else Path(text.removeprefix("file://"))


def within(folder: Path, path: str | Path) -> Path:
    """Return a user's path, which starts from a folder."""
    named = place(path).expanduser()
    return named if isinstance(named, RemotePath) else folder / named


def rooted(data: DataSection, root: Path) -> DataSection:
    """Return a run's data section with full paths; those in ``data`` start from ``root``."""
    sets = (entry.model_copy(update={"path": str(within(root, entry.path))}) for entry in data.sets)
    return data.model_copy(update={"sets": tuple(sets)})


def seen_from(folder: Path, path: Path) -> str:
    """Return a path relative to a folder; a remote one stays whole."""
    return str(path) if isinstance(path, RemotePath) else os.path.relpath(path.absolute(), folder.absolute())


def matches(pattern: Path) -> list[Path]:
    """Return the paths that a glob matches, on this machine or another, sorted."""
    if isinstance(pattern, RemotePath):
        return sorted(map(RemotePath, listing(str(pattern), "glob")))
    return [Path(match) for match in sorted(glob.glob(str(pattern), recursive=True))]


class RemotePath(PosixPath):
    """A path on another machine, as far as readers need one."""

    def __str__(self) -> str:
        """Return the address with two slashes after the protocol, which paths merge into one."""
        return super().__str__().replace(":/", "://", 1)

    @property
    def parent(self) -> RemotePath:
        """Return the folder above; a host or bucket is its own parent."""
        return self if len(self.parts) < 3 else super().parent

    def absolute(self) -> RemotePath:
        """Return the path itself, which is absolute."""
        return self

    def resolve(self, strict: bool = False) -> RemotePath:
        """Return the path itself: links are not known."""
        return self

    def expanduser(self) -> RemotePath:
        """Return the path itself: it names no home folder."""
        return self

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether anything is there."""
        return about(str(self)) is not None

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a file."""
        return self.exists() and not self.is_dir()

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a folder."""
        return (found := about(str(self))) is not None and found.is_folder

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return the size, and a number that tells the path from others."""
        found = existing(str(self))
        kind = stat.S_IFDIR if found.is_folder else stat.S_IFREG
        number = int.from_bytes(hashlib.blake2b(str(self).encode(), digest_size=7).digest())
        return os.stat_result((kind, number, 0, 1, 0, 0, found.size, 0, 0, 0))

    def open(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Open the file to read bytes, whatever the mode."""
        return io.BufferedReader(RemoteFile(str(self)))

    def iterdir(self) -> Generator[RemotePath, None, None]:
        """Yield the members of a folder."""
        yield from map(RemotePath, listing(str(self), "ls"))

    def rglob(self, pattern: str) -> Generator[RemotePath, None, None]:
        """Yield all files and folders in a folder, whatever the pattern."""
        yield from map(RemotePath, listing(str(self), "find", withdirs=True))
