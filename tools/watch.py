"""Watch runs while they train, as curves in the terminal, or compare them once."""

import sys

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.commands.flags import watch as main

if __name__ == "__main__":
    sys.exit(main())
