"""Turn a training checkpoint into another form, or say what is in it and whether it is whole."""

import sys

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.commands.flags import convert_checkpoint as main

if __name__ == "__main__":
    sys.exit(main())
