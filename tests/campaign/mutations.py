"""Ways to damage a file's bytes, drawn at random: flipped, overwritten, cut, moved, and headers that claim too much."""

import json
import re
from random import Random

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
