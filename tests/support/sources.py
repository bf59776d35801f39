"""The sources of the package, its launchers and its tools, parsed once for all tests of a process."""

import ast
import gc
from collections import defaultdict
from functools import cache

from tests.support.paths import ROOT


@cache
def sources():
    """The path of each source and its nodes by their type, each in the order of `ast.walk`."""
    gc.disable()  # nobody looks for garbage among their million nodes
    try:
        paths = [path for folder in ("matey", "launch", "tools") for path in sorted((ROOT / folder).rglob("*.py"))]
        return [(path, _nodes_of(ast.parse(path.read_text(encoding="utf-8")))) for path in paths]
    finally:
        gc.freeze()
        gc.enable()


def _nodes_of(tree):
    nodes = defaultdict(list)
    for node in ast.walk(tree):
        nodes[type(node)].append(node)
    return nodes
