"""List or print the configurations that come with MATEY, or explain a key of the run YAML."""

import sys

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.commands.flags import configs as main

if __name__ == "__main__":
    sys.exit(main())
