"""Simulate an ensemble of trajectories of one PDE system and write it in the format of the published data."""

import sys

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.commands.flags import simulate as main

if __name__ == "__main__":
    sys.exit(main())
