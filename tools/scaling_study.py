"""Study how a run scales: the same few steps on several numbers of ranks or nodes."""

import sys

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.commands.flags import scaling_study as main

if __name__ == "__main__":
    sys.exit(main())
