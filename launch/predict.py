"""Forecast trajectories with a trained model, into a file that other programs open."""

import sys

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.commands.flags import predict as main

if __name__ == "__main__":
    sys.exit(main())
