"""What the commands in launch/ and tools/ do once their arguments are read.

A script reads its command line and checks what it can without PyTorch, which takes seconds to import; then it imports its
module here.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository's root, from which studies start the scripts in launch/ and tools/."""
