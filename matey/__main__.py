"""Runs ``python -m matey pretrain ...``, for launchers that start Python themselves."""

from __future__ import annotations

import sys

from matey.commands.subcommands import main

if __name__ == "__main__":
    sys.exit(main())
