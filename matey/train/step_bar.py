"""The progress bar of training, which in a log becomes a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

LINE_EVERY = 30.0  # seconds between two lines where standard error is no terminal


def step_bar(num_steps: int, done: int, *, is_shown: bool) -> tqdm[Any]:
    """Return a bar of ``num_steps`` steps that begins at ``done``; it stays silent unless ``is_shown``."""
    interval = 0.1 if sys.stderr.isatty() else LINE_EVERY
    return StepBar(
        total=num_steps,
        initial=done,
        unit="step",
        disable=not is_shown,
        dynamic_ncols=True,
        miniters=1,
        mininterval=interval,
    )


class StepBar(tqdm):  # type: ignore[type-arg]  # tqdm is generic in its annotations alone
    """A bar that is redrawn in place in a terminal only; elsewhere each drawing is a line of its own."""

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:  # noqa: ANN401 what tqdm was given
        """Return the function that shows a text in ``file`` in place of the text before."""
        if file.isatty():
            return tqdm.status_printer(file)

        def print_line(text: str) -> None:
            if text:
                file.write(f"{text}\n")
                file.flush()

        return print_line

    def clear(self, nolock: bool = False) -> None:  # noqa: FBT001, FBT002 as tqdm has it
        """Take the bar off the screen, if the output is a terminal."""
        if self.fp.isatty():
            super().clear(nolock)
