"""Say what is in data sets, and check that all of it can be used."""

import sys

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.commands.flags import inspect_data as main

if __name__ == "__main__":
    sys.exit(main())
