"""Draw the mesh that a run's tokenizer chooses over a field."""

import sys

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.commands.flags import show_tokens as main

if __name__ == "__main__":
    sys.exit(main())
