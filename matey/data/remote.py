"""Data on other machines: paths such as ``https://host/data.h5`` and ``s3://bucket/set.zarr``, which can stand for any path.

fsspec asks the servers. What is read is fetched and cached on this machine: files in blocks, the chunks of Zarr stores whole.
Each version of a file (size, etag and modification time) has a folder with a file for each block. A block is moved into place
when it is whole, so that ranks and workers can share it. Nothing is ever removed.
"""

from __future__ import annotations

import fnmatch
import gc
import glob
import hashlib
import io
import os
import stat
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path, PosixPath, PurePosixPath
from typing import Any, NoReturn

from matey.config import DataSection
from matey.mistakes import DataError

ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray")
"""Files by which a folder is known as a Zarr store."""
ZARR_METADATA = (*ZARR_MARKS, ".zmetadata", ".zattrs")
"""Files of a Zarr store that are no chunks."""

# Names in various file systems of the properties that change when a file does.
_TAGS = (
    "ETag etag blob_id sha Content-MD5 md5Hash Last-Modified LastModified mtime modify modificationTime created"
).split()
_CLOSED = (401, 403, 404, 410)  # answers of web servers about files that are not there, or not for everyone
_WEB = ("http://", "https://")
_CONNECT, _SILENCE = 20, 60  # seconds until a server that does not answer counts as unreachable


@dataclass(frozen=True)
class About:
    """A server's answer about a path: its kind, size in bytes, and a text that differs between versions of a file."""

    is_folder: bool
    size: int
    version: str


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
    return About(is_folder=True, size=0, version="") if is_store else None


def existing(url: str) -> About:
    """Ask about a path that has to exist.

    Raises:
        DataError: nothing is there, or the server cannot be reached.
    """
    found = about(url)
    if found is None:
        raise DataError(f"{url} does not exist, or is not open to you; check the address.")
    return found


def fetched(url: str, start: int = 0, stop: int | None = None) -> bytes:
    """Fetch bytes of a file, in one request; all of it without ``stop``.

    Raises:
        FileNotFoundError: the file does not exist.
        DataError: the server cannot be reached.
    """
    system, path = system_of(url)
    try:
        if stop is None or not url.startswith(_WEB):
            return system.cat_file(path, **({} if stop is None else {"start": start, "end": stop}))
        with system.open(path, cache_type="none", size=existing(url).size) as file:  # notices if no parts are sent
            file.seek(start)
            return file.read(stop - start)
    except FileNotFoundError:
        raise
    except Exception as error:  # raised by any library below fsspec
        _unreachable(url, error)


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
    options: dict[str, Any] = {}
    try:
        if url.startswith(_WEB):
            from aiohttp import ClientTimeout

            timeout = ClientTimeout(sock_connect=_CONNECT, sock_read=_SILENCE)
            options = {"client_kwargs": {"timeout": timeout, "trust_env": True}}
        return url_to_fs(url, **options)
    except ImportError as error:
        raise DataError(f"{url}: {error}; for data on other machines: pip install 'matey-pde[remote]'.") from None
    except ValueError as error:
        raise DataError(f"{url} is of no protocol that fsspec knows ({error}).") from None
    except Exception as error:  # raised by any file system of fsspec that needs more than an address
        _unreachable(url, error)


def _understood(url: str, info: dict[str, Any]) -> About:
    is_page = str(info.get("mimetype")) == "text/html"  # a web server's answer for a folder
    is_folder = info.get("type") == "directory" or is_page
    if info.get("size") is None and not is_folder:
        raise DataError(f"{url}: the server does not say how long the file is; download it.")
    version = " ".join(f"{name}={info[name]}" for name in ("size", *_TAGS) if info.get(name))
    return About(is_folder, int(info.get("size") or 0), version)


def _unreachable(url: str, error: BaseException) -> NoReturn:
    if isinstance(error, DataError):
        raise error
    reason = " ".join(str(error).split())[:200]
    raise DataError(
        f"{url} cannot be reached ({type(error).__name__}{f': {reason}' if reason else ''}); check network, address and your "
        "access to it, or name a copy on this machine."
    ) from error


BLOCK = 2**16  # fewest bytes of one request: headers lie all over an HDF5 file
MOST_AT_ONCE = 2**25  # most bytes of one request


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
        self._url, self._size, self._place = url, found.size, 0
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
        except FileNotFoundError:
            content = b""
        if len(content) != after - first:
            raise DataError(
                f"{self._url}: asked for the bytes {first:,} to {after - 1:,}, the server sent {len(content):,} bytes; "
                "the file has changed or gone: start again."
            )
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
    # Chunks count as the same as long as the metadata of the whole store does: to ask for the version of each would double
    # the requests.
    metadata = (about(f"{root}/{mark}") for mark in ZARR_METADATA)
    folder = cache_folder() / name_of(root, *(mark.version for mark in metadata if mark))

    class Chunks(AbstractFileSystem):  # type: ignore[misc]  # untyped
        """The store's folder; chunks that were read are kept."""

        cachable = False

        def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:  # noqa: ANN401
            url = system.unstrip_protocol(path)
            if start is None and end is None:
                return kept(folder / name_of(path), lambda: fetched(url))
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


def would_match(pattern: Path, file: Path) -> bool:
    """Whether a path, folder or glob would stand for a future file; both are absolute."""
    parts = (file, *file.parents)
    if "**" in pattern.parts:  # stands for no folder or several
        return any(fnmatch.fnmatch(str(part), str(pattern).replace("**/", "*")) for part in parts)
    return any(part == pattern or part.match(str(pattern)) for part in parts)


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
        found = about(str(self))
        return found is not None and not found.is_folder

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a folder."""
        found = about(str(self))
        return found is not None and found.is_folder

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return the size and, as modification time, a number that differs between versions of the file."""
        found = existing(str(self))
        kind = stat.S_IFDIR if found.is_folder else stat.S_IFREG
        number, version = (int(name_of(text)[:15], 16) for text in (str(self), found.version))
        return os.stat_result((kind, number, 0, 1, 0, 0, found.size, 0, 0, 0), {"st_mtime_ns": version})

    def open(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Open the file to read bytes, whatever the mode."""
        return io.BufferedReader(RemoteFile(str(self)))

    def iterdir(self) -> Generator[RemotePath, None, None]:
        """Yield the members of a folder."""
        yield from map(RemotePath, listing(str(self), "ls"))

    def rglob(self, pattern: str) -> Generator[RemotePath, None, None]:
        """Yield all files and folders in a folder, whatever the pattern."""
        yield from map(RemotePath, listing(str(self), "find", withdirs=True))
