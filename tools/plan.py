"""Plan a run before it costs node hours: tokens, memory, communication, step time, days."""

import sys

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.commands.flags import plan as main

if __name__ == "__main__":
    sys.exit(main())
