"""Asks servers for files by fsspec: their existence and size, lists of them, and parts of their content."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Any, NoReturn

from matey.data.trajectory import DataError

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
_OFTEN = 60.0  # seconds from one question about the version of a file in use to the next
_asked: dict[str, float] = {}  # times of these


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


def has_changed(url: str, version: str) -> bool:
    """Ask anew about a file, at most once in a while; return whether it is another than the one of a version."""
    now = time.monotonic()
    if now - _asked.setdefault(url, now) < _OFTEN:
        return False
    _asked[url] = now
    found: About | None = about.__wrapped__(url)
    return found is None or found.version != version


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
