"""How a command begins and ends."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from matey.ending import end_with_error
from matey.likely_place import likely_place
from matey.mistakes import Mistake
from matey.waiting_threads import let_waiting_threads_sleep

Arguments = ParamSpec("Arguments")


def entry_point(command: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """Decorate a command, which returns its exit code: a mistake ends it with its sentence and code 2, ctrl-C with a word.

    What has to be set before PyTorch is imported is set here; several ranks say a mistake once.
    """

    @wraps(command)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        let_waiting_threads_sleep()
        try:
            return command(*args, **kwargs)
        except Mistake as error:
            rank, world_size = likely_place()
            if world_size > 1:
                return end_with_error(rank, world_size, f"error: {error}")
            sys.stderr.write(f"error: {error}\n")
            return 2
        except KeyboardInterrupt:
            sys.stderr.write("Interrupted.\n")
            return 130  # as shells have it for SIGINT

    return run
