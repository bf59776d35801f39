"""What the commands in launch/ and tools/ do once their arguments are read.

A script reads its command line and checks what it can without PyTorch, which takes seconds to import; then it imports its
module here.
"""

from pathlib import Path

from matey.config.shipped import ROOT, is_installed

__all__ = ["ROOT", "WORK"]

WORK = Path.cwd() if is_installed() else ROOT
"""Folder that relative paths of data count from in studies, and in which they start scripts: in a checkout its root."""
