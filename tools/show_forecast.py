"""Draw a rollout beside the truth, with the mesh of tokens that the model chooses at each time."""

import sys

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.commands.flags import show_forecast as main

if __name__ == "__main__":
    sys.exit(main())
