"""Whether a folder may be a run's, and the lock by which one process at a time uses a folder or makes a file.

A run writes to a folder that is new, empty, or marked as a run's, and replaces only entries of the form that it makes itself.
Any other is refused in a sentence before anything in it is touched.

The lock ends with its process, however it ends: it is the kernel's, on a file of its own (a POSIX record lock, `fcntl.lockf`).
SIGKILL leaves nothing to clean up, and processes that read data do not inherit it. The file names the holder.

NFS, and Lustre mounted with ``flock``, carry such locks between nodes. Not every mount does, and the lock of a node that died
stays for a while. The holder therefore touches the file every few seconds, and a node that finds another node's name in it
checks whether the touches go on:

    lock                     the file names     then
    granted                  nobody             it is ours
    granted                  this node          it is ours: the kernel has seen the holder end
    not granted              this node          refused at once
    any, or no locks in      another node       refused as soon as the file is touched, or if the lock is not granted
    the file system                             for LEASE; otherwise ours after SILENCE without a touch
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from threading import Event, Thread
from typing import ClassVar

from matey.checkpoints import run_files
from matey.config import ConfigError
from matey.mistakes import Mistake

BEAT = 5.0  # seconds between two touches
LOOK = 1.0  # seconds between two looks at the file of a holder on another node
SILENCE = 30.0  # seconds without a touch after which a holder on another node counts as ended
LEASE = 120.0  # seconds after which NFS and Lustre have released the locks of a node that died
PATIENCE = 60.0  # seconds for which a node may use earlier, cached contents of a folder
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # errors of a file system without locks


class LockedError(Mistake):
    """Another process holds the lock, or has taken it over: one sentence that names it and says what to do."""


Holder = dict[str, str | int]


class Lock:
    """A lock that is held from `take` until `release` or the end of this process.

    Meanwhile no other code of this process may open its file: the kernel releases the lock when any descriptor is closed.

    Attributes:
        path: file that carries the lock.
        place: folder or file that the holder alone may write.
        holder: node, process and time that the file of the lock names once it is taken.
    """

    does: ClassVar[str]  # what the holder does with the place
    instead: ClassVar[str]  # what a process that is refused may choose
    once_lost: ClassVar[str]  # what to do when the lock was lost
    stays: ClassVar[bool]  # whether the file of the lock stays when the lock is released

    def __init__(self, path: Path, place: Path) -> None:
        self.path, self.place = path, place
        self._file: int | None = None
        self.holder: Holder = {}
        self._ended = Event()
        self._heart = Thread(target=self._beat, daemon=True)

    def take(self) -> None:
        """Take the lock, in a folder that is made if it is not there; `LEASE` seconds may pass if another node holds it.

        Raises:
            LockedError: another process holds it.
            OSError: the folder cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        node, started, first_touch = socket.gethostname(), time.monotonic(), None
        while self._file is None:
            file, is_granted = self._open()
            holder, touch = _read(file), os.fstat(file).st_mtime_ns
            first_touch = first_touch or touch
            is_here, waited = holder.get("node") == node, time.monotonic() - started
            may_be_ours = is_granted is not False
            if may_be_ours and (not holder or waited > SILENCE) or is_granted and is_here:
                self._file = file
            else:
                os.close(file)
                if touch != first_touch or waited > LEASE or is_here and not may_be_ours:
                    raise LockedError(self._refusal(holder, touch))
                time.sleep(LOOK)
        job = os.environ.get("SLURM_JOB_ID")
        about: Holder = {"node": node, "process": os.getpid(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
        about |= {"job": job} if job else {}
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, json.dumps(about).encode(), 0)
        os.fsync(self._file)
        self.holder = about
        self._heart.start()

    def release(self) -> None:
        """Release the lock, if it is held; its file stays and names nobody, or is removed."""
        if self._file is not None:
            self._ended.set()
            if self._heart.is_alive():  # on a full disk it was never started
                self._heart.join()
            with suppress(OSError):
                is_ours = not self.loss()
                if is_ours or not self._is_there(self._file):
                    os.ftruncate(self._file, 0)
                if is_ours and not self.stays:
                    self.path.unlink()
            os.close(self._file)
            self._file = None

    def loss(self) -> str | None:
        """Return a sentence if the lock is no longer ours: its file, or the folder, was moved, removed or taken over."""
        is_there, holder = True, self.holder
        with suppress(OSError):  # a file server may be away for a moment
            if self._file is not None:
                is_there, holder = self._is_there(self._file), _read(self._file)
        if is_there and holder == self.holder:
            return None
        if is_there:
            what = f"{self.path} names another process, {json.dumps(holder)}, which took this one for ended"
        else:
            what = f"{self.path} was moved or removed, so that another run may be there"
        return f"{self.place} is no longer this run's: {what}. Nothing more is written; {self.once_lost}."

    def _is_there(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self.path.stat())
        except (FileNotFoundError, NotADirectoryError):  # asked once, since another process may remove it in between
            return False

    def _open(self) -> tuple[int, bool | None]:
        """Open the file; return its descriptor and whether its lock was granted, None where the file system has no locks."""
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in NO_LOCKS:
                    return file, None
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    return file, False
                os.close(file)
                raise
            # Meanwhile the file may have been removed, or its folder moved aside with it.
            if self._is_there(file):
                return file, True
            os.close(file)

    def _beat(self) -> None:
        assert self._file is not None, "the heart begins after the lock is taken, and ends before it is released"
        while not self._ended.wait(BEAT):
            with suppress(OSError):  # a file server may be away for a moment
                os.utime(self._file)

    def _refusal(self, holder: Holder, touch: int) -> str:
        node, process, job = (holder.get(name) for name in ("node", "process", "job"))
        who = f"process {process} on {node}" + (f", job {job}," if job else "") if holder else "another process"
        since = f" since {holder['since']}" if "since" in holder else ""
        age = max(0.0, time.time() - touch / 1e9)
        end = f" (scancel {job})" if job else f" (kill {process} on {node})" if holder else ""
        return (
            f"{self.place} is in use: {who} {self.does}{since} and touched {self.path} {age:.0f} s ago; wait for it, end "
            f"it{end}, or choose {self.instead}. If there is no such process any more, remove that file."
        )


class FolderLock(Lock):
    """The lock of a run's folder, ``matey.lock``; the file stays there, and names nobody after a run that ended normally."""

    does, instead, stays = "trains there", "another output.dir", True
    once_lost = "go on from the last checkpoint with --resume, where the folder is now"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / run_files.LOCK, folder)


class FileLock(Lock):
    """The lock of a file while it is being made, ``.NAME.lock`` beside it, which is removed at the end."""

    does, instead, stays = "makes it", "another name", False
    once_lost = "start the same command again when no other makes this file"

    def __init__(self, file: Path) -> None:
        super().__init__(file.with_name(f".{file.name}.lock"), file)

    def check(self) -> None:
        """Raise LockedError if the lock is no longer ours."""
        if loss := self.loss():
            raise LockedError(loss)


def not_shared(folder: Path, holder: Holder, patience: float = PATIENCE) -> str | None:
    """Return a sentence if a folder is not the one that rank 0 has locked under the same name; None if its lock is seen.

    Args:
        folder: the folder as this rank sees it.
        holder: contents of its lock file, see `FolderLock.holder`.
        patience: seconds in which the file may appear.
    """
    until = time.monotonic() + patience
    while True:
        with suppress(OSError):
            os.listdir(folder.parent)  # so that a network file system looks again
            file = os.open(folder / run_files.LOCK, os.O_RDONLY)
            try:
                if _read(file) == holder:
                    return None
            finally:
                os.close(file)
        if time.monotonic() > until:
            return (
                f"output.dir is {folder}, and {socket.gethostname()} does not see there what rank 0 has written on "
                f"{holder['node']}: each seems to have a folder of its own of that name, and no checkpoint would be whole. "
                "Choose an output.dir on a file system that all nodes share."
            )
        time.sleep(0.5)


def _read(file: int) -> Holder:
    """Return the holder that the file names; empty if it names nobody, or holds something else."""
    try:
        holder = json.loads(os.pread(file, 4096, 0))
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


# DeepSpeed looks for a checkpoint's files by `glob`, where these letters form patterns.
PATTERN_LETTERS = "*?["
DONE = "done: train.steps={}"
FOLDERS = (run_files.CHECKPOINTS, run_files.MODEL, run_files.MODEL_BEFORE, run_files.MODEL_AFTER)


def check_folder(path: Path) -> None:
    """Raise ConfigError if a run must not write to a folder."""
    if letters := [letter for letter in PATTERN_LETTERS if letter in str(path)]:
        raise ConfigError(
            f"output.dir is {path}, and DeepSpeed takes {' and '.join(letters)} for parts of a pattern, so that it would not "
            f"find the run's checkpoints, or find those of another run; choose a name without {' '.join(PATTERN_LETTERS)}."
        )
    here, whole = Path.cwd(), path.resolve()
    if whole == here or whole in here.parents:
        raise ConfigError(
            f"output.dir is {path}, which is the working folder or one above it; name a folder of the run's own, such as "
            "runs/demo."
        )
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        raise ConfigError(f"output.dir is {path}, which is no folder; choose another one.")
    if not is_of_a_run(path) and (others := sorted(entry.name for entry in path.iterdir())):
        raise ConfigError(
            f"output.dir is {path}, which holds {', '.join(others[:3])}{' and more' if len(others) > 3 else ''} and was not "
            "made by a run; choose a new or an empty folder."
        )
    _check_entries(path)


def is_of_a_run(path: Path) -> bool:
    """Whether a folder is marked as a run's: by its lock, or by the configurations that runs have always written."""
    return (path / run_files.LOCK).is_file() or all(
        (path / name).is_file() for name in (run_files.CONFIG, run_files.DS_CONFIG)
    )


def is_folder(path: Path) -> bool:
    """Whether a path is a folder itself, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def record(path: Path, text: str) -> None:
    """Add a line to the commands in a run's folder, with the time."""
    with (path / run_files.COMMANDS).open("a", encoding="utf-8") as file:
        file.write(f"{datetime.now():%Y-%m-%d %H:%M} {text}\n")


def is_done(path: Path, steps: int) -> bool:
    """Whether the last run in a folder has ended, with all of so many steps done; a launcher's exit code may not tell."""
    with suppress(OSError):
        return (path / run_files.COMMANDS).read_text(encoding="utf-8").endswith(f"{DONE.format(steps)}\n")
    return False


def cannot_write(path: Path, error: OSError) -> str:
    """Return a sentence about a run's folder that cannot be written."""
    advice = "make room there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose another output.dir"
    return f"Cannot write to {path} ({error.strerror}); {advice}."


def _check_entries(path: Path) -> None:
    """Raise ConfigError if an entry of a run's folder is not of the kind that a run makes."""
    for name in (run_files.LOCK, *run_files.RUN_FILES, *FOLDERS):
        entry = path / name
        is_right = entry.is_dir() if name in FOLDERS else entry.is_file()
        # The folder of checkpoints may be a link; other entries may not, since they are replaced as a whole.
        if os.path.lexists(entry) and (not is_right or entry.is_symlink() and name != run_files.CHECKPOINTS):
            raise ConfigError(_no_run_has_made(entry))
    for entry in (path / run_files.CHECKPOINTS).iterdir() if (path / run_files.CHECKPOINTS).is_dir() else ():
        if run_files.STEP.fullmatch(entry.name.removesuffix(".new")) and not is_folder(entry):
            raise ConfigError(_no_run_has_made(entry))
    model = path / run_files.MODEL
    if model.is_dir() and any(model.iterdir()) and not (model / run_files.MODEL_CONFIG).is_file():
        raise ConfigError(
            f"{model} holds no model, and the run would put its best weights in its place; move it away, or choose another "
            "output.dir."
        )


def _no_run_has_made(entry: Path) -> str:
    what = "a link" if entry.is_symlink() else "a folder" if entry.is_dir() else "a file"
    return f"{entry} is {what}, which no run has made; move it away, or choose another output.dir."
