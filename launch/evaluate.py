"""Evaluate a trained model."""

import sys

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.commands.flags import evaluate as main

if __name__ == "__main__":
    sys.exit(main())
