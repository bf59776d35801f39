"""Damaged copies of files of every format: each is read, or refused in a sentence, in bounded time and memory.

Every file is read in a child process of its own, which a fault in a library in C cannot take along.
"""

import faulthandler
import json
import os
import re
import resource
import runpy
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import psutil
import pytest

from matey.checkpoints.run_files import CheckpointError, ShardError
from matey.checkpoints.trained import load_trained
from matey.config import ConfigError
from matey.data import DataError, open_dataset
from tests.campaign.moments import Kind, scaled
from tests.support import layout_files as layouts
from tests.support.paths import ROOT

NUM_FILES = 500
HELD = "{count} damaged files were read or refused in a sentence"
SECONDS = 20  # of CPU time
FACTOR, CONSTANT = 10, 512 * 2**20  # bytes of memory that may be used: over the file's own, and at all
ADDRESSES = 4 * 2**30  # bytes that may be asked for; what is not used takes no memory

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Result:
    """What became of a child: its exit code, what it printed, its CPU time in s, and the bytes it grew by."""

    code: int
    text: str
    seconds: float
    grown: int


def in_child(function: Callable[[], int], num_bytes: int = ADDRESSES) -> Result:
    """Call a function in a child that may ask for so many bytes more than this process has; return what became of it."""
    held = psutil.Process().memory_info()
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                resource.setrlimit(resource.RLIMIT_AS, (held.vms + num_bytes,) * 2)
                resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                faulthandler.enable(output)  # a crash is told of there, and not among pytest's own lines
                sys.stdout = open(1, "w", errors="replace", closefd=False)
                # As the interpreter's own: what a progress bar clears its line with is written at once.
                sys.stderr = open(2, "w", buffering=1, errors="replace", closefd=False)
                code = function()
            except SystemExit as error:
                code = error.code
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status, used = os.wait4(child, 0)
        output.seek(0)
        text = output.read().decode(errors="replace")
    return Result(
        os.waitstatus_to_exitcode(status), text, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 - held.rss
    )


def sentence_of(read: Callable[[], object]) -> int:
    """Read something; print the sentence of an error that is meant for a user."""
    try:
        read()
    except (DataError, CheckpointError, ConfigError, ShardError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def open_and_read(path: Path) -> int:
    """Open data as a run does, and read the first frames of each trajectory."""

    def read() -> None:
        data = open_dataset(path)
        for index, about in enumerate(data.trajectories[:20]):
            assert np.isfinite(data.read(index, 0, min(2, about.num_frames))).all()

    return sentence_of(read)


def tool(name: str, *arguments: object) -> int:
    """Run a program of tools/ in this process."""
    sys.argv, sys.path[0] = [name, *map(str, arguments)], str(ROOT / "tools")
    runpy.run_path(str(ROOT / "tools" / name), run_name="__main__")
    return 0


def inspect(path: Path) -> int:
    return tool("inspect_data.py", path)


def describe_checkpoint(path: Path) -> int:
    return tool("convert_checkpoint.py", "--describe", next(p for p in path.parents if p.name == "run"))


def convert_checkpoint(path: Path) -> int:
    run = next(p for p in path.parents if p.name == "run")
    return tool("convert_checkpoint.py", run, "--to", "fp32", "--out", run / "fp32")


def load(path: Path) -> int:
    return sentence_of(lambda: load_trained(next(p for p in path.parents if p.name == "run")))


# Ways to damage a file's bytes, drawn at random: flipped, overwritten, cut, moved, and headers that claim too much.
HEADER = 4096
"""Bytes at the beginning in which most formats keep sizes and places."""

CLAIMS = (0, 1, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 10**12, 2**62, 2**63 - 1, 2**64 - 1)


def flip(content: bytearray, random: Random) -> None:
    """Flip bits here and there."""
    for _ in range(random.choice((1, 4, 64))):
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)


def flip_header(content: bytearray, random: Random) -> None:
    """Change bytes where the sizes are."""
    for _ in range(random.choice((1, 4, 16))):
        content[random.randrange(min(HEADER, len(content)))] = random.randrange(256)


def cut(content: bytearray, random: Random) -> None:
    """Cut the file off."""
    del content[random.randrange(len(content)) :]


def cut_header(content: bytearray, random: Random) -> None:
    """Cut the file off near its beginning."""
    del content[random.randrange(min(HEADER, len(content))) :]


def overwrite(content: bytearray, random: Random) -> None:
    """Overwrite a block, as a bad sector or a hole does."""
    start, size = random.randrange(len(content)), random.choice((8, 64, 512, 4096))
    fill = random.choice((b"\0", b"\xff", bytes([random.randrange(256)])))
    content[start : start + size] = fill * len(content[start : start + size])


def shift(content: bytearray, random: Random) -> None:
    """Insert or drop bytes, so that all that follows lies elsewhere."""
    start, size = random.randrange(len(content)), random.randint(1, 16)
    content[start : start + random.choice((0, size))] = random.randbytes(random.choice((0, size)))


def claim(content: bytearray, random: Random) -> None:
    """Write an absurd number over a small one, in digits where the header is text."""
    digits = [*re.finditer(rb"\d+", bytes(content[:HEADER]))]
    if digits and random.random() < 0.3:
        found = random.choice(digits)
        content[found.start() : found.end()] = str(random.choice(CLAIMS)).encode()
        return
    size, order = random.choice((4, 8)), random.choice(("little", "big"))
    places = range(0, min(HEADER, len(content) - size), 4)
    small = [start for start in places if 0 < int.from_bytes(content[start : start + size], order) < 10**6]
    start = random.choice(small or [0])
    content[start : start + size] = (random.choice(CLAIMS) % 2 ** (8 * size)).to_bytes(size, order)


def claim_in_json(content: bytearray, random: Random) -> None:
    """Put other values into JSON: the file itself, or the header of safetensors."""
    start = 8 if content[:1] != b"{" else 0
    size = int.from_bytes(content[:8], "little") if start else len(content)
    try:
        tree = json.loads(content[start : start + size])
    except ValueError:
        tree = None
    if not isinstance(tree, dict):
        claim(content, random)
        return
    nodes = [tree]
    for node in nodes:
        nodes += [
            value for value in (node.values() if isinstance(node, dict) else node) if isinstance(value, dict | list)
        ]
    node = random.choice([node for node in nodes if node])
    place = random.choice([*node] if isinstance(node, dict) else range(len(node)))
    node[place] = random.choice((None, -1, 0, 10**12, 2**63, 1e300, "", "F32", "../x", [], {}, [10**9] * 3, True))
    text = json.dumps(tree).encode()
    content[: start + size] = (len(text).to_bytes(8, "little") if start else b"") + text


MUTATIONS = (flip, flip_header, cut, cut_header, overwrite, shift, claim, claim_in_json)


def mutated(content: bytes, random: Random) -> tuple[bytes, str]:
    """Return a damaged copy of a file's bytes, and the name of the damage."""
    mutation = random.choice(MUTATIONS)
    copy = bytearray(content)
    mutation(copy, random)
    return bytes(copy), mutation.__name__


STEP = "run/checkpoints/step_000008"
# A writer of each kind of file, and the ways in which a copy is read in turn.
DATA = {
    "shallow_water.h5": lambda path: layouts.write_seed_groups(path, "shallow_water"),
    "diffusion_reaction.h5": lambda path: layouts.write_seed_groups(path, "diffusion_reaction"),
    "incompressible.h5": layouts.write_incompressible,
    "compressible.h5": layouts.write_compressible,
    "cavity.h5": layouts.write_cavity,
    "cavity.npy": layouts.write_cavity_array,
    "thermals.nc": lambda path: layouts.write_miniweather(path, layouts.thermals()),
    "thermals_netcdf4.nc": lambda path: layouts.write_miniweather_netcdf4(path, layouts.thermals()),
    "data/test/well.hdf5": layouts.write_the_well,
}
OF_A_RUN = {
    f"{STEP}/mp_rank_00_model_states.pt": (describe_checkpoint, convert_checkpoint),
    f"{STEP}/zero_pp_rank_0_mp_rank_00_optim_states.pt": (describe_checkpoint, convert_checkpoint),
    f"{STEP}/ema_rank_00000.safetensors": (describe_checkpoint,),
    "run/checkpoints/latest": (describe_checkpoint,),
    "run/config.yaml": (describe_checkpoint, load),
    "run/split.jsonl": (load,),
    "run/metrics.jsonl": (load,),
    "run/model/model.safetensors": (load,),
    "run/model/config.json": (load,),
}
KINDS = [(name, (inspect, open_and_read)) for name in DATA] + [*OF_A_RUN.items()]


@pytest.fixture(scope="module")
def sound(tmp_path_factory, whole):
    """A folder with a sound file of every kind."""
    folder = tmp_path_factory.mktemp("sound")
    for name, write in DATA.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name)
    shutil.copytree(whole(Kind(1, 1, 0)).run, folder / "run")
    return folder


@pytest.mark.parametrize(("name", "readers"), KINDS, ids=[name.rpartition("/")[2] for name, _ in KINDS])
def test_damaged_copies_are_read_or_refused(tmp_path, sound, held, name, readers):
    folder = tmp_path / "here"
    shutil.copytree(sound / "run", folder / "run")
    path, content = folder / name, (sound / name).read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    wrong = []
    for number in range(scaled(-(-NUM_FILES // len(KINDS)))):
        random = Random(f"{name} {number}")
        damaged, damage = mutated(content, random)
        path.write_bytes(damaged)
        read = readers[number % len(readers)]
        result = in_child(lambda read=read: read(path))
        is_bounded = result.seconds < SECONDS and result.grown < FACTOR * len(damaged) + CONSTANT
        is_said = result.code == 0 or result.code in (1, 2) and has_sentence(result.text)
        if is_bounded and is_said and "Traceback" not in result.text:
            held["read" if result.code == 0 else "refused"] += 1
        else:
            wrong.append(f"copy {number} ({damage}, {read.__name__}), {result}")
        shutil.rmtree(folder / "run" / "fp32", ignore_errors=True)
    assert not wrong, f"{len(wrong)} copies: " + "\n".join(wrong[:10])


def has_sentence(text: str) -> bool:
    """Whether a line says what is wrong."""
    return any(line.startswith(("error: ", "fault: ", "corrupt: ")) for line in text.splitlines())


def test_what_a_child_may_use_is_bounded_and_its_end_is_seen():
    def too_much():
        return len(np.ones(2**28))

    assert "MemoryError" in in_child(too_much, 2**28).text
    assert in_child(lambda: os.kill(os.getpid(), signal.SIGSEGV) or 0, 2**28).code == -signal.SIGSEGV
