"""The work of the commands in launch/ and tools/ after their arguments are read.

A script reads and checks its command line without PyTorch, which takes seconds to import; then it imports its
module here.
"""

from pathlib import Path

from matey.config.loading import ROOT, is_installed

__all__ = ["ROOT", "WORK"]

WORK = Path.cwd() if is_installed() else ROOT
"""Folder in which studies start scripts, and to which their relative paths of data refer: in a checkout, its root."""
