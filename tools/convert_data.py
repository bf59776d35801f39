"""Write data of any kind that is read here in The Well's layout."""

import sys

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.commands.flags import convert_data as main

if __name__ == "__main__":
    sys.exit(main())
