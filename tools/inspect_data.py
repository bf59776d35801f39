"""Say what is in data sets, and check that all of it can be used.

    python tools/inspect_data.py PATH... [--plot] [--out contact_sheet.png]
    python tools/inspect_data.py FILE --describe matey.yaml [--plot]

A PATH is a file, a folder or a glob, and may hold several systems; each is shown by itself. Every frame is read: a file
that cannot be read to its end, a value that is not finite, shapes that differ and times that do not increase are printed,
one line for each, and make the exit code 1.

--describe is for a file of a layout of your own (HDF5, netCDF, Zarr, .npy): it writes a YAML that says what is in it, as
far as that can be guessed, with TODO for the rest. With these filled in, the YAML is a PATH like any other; under the
name matey.yaml, it is found beside the data.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matey  # noqa: F401 (is it not found? Activate its environment: source .venv/bin/activate)
from matey.config import flags
from matey.process.entry_point import entry_point


@entry_point
def main() -> int:
    """Run from the command line; 0 if all data can be used, 1 if not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="data: a file, a folder or a glob")
    parser.add_argument("--plot", action="store_true", help="draw frames of one trajectory of each system")
    parser.add_argument(
        "--out", type=flags.path, default=Path("contact_sheet.png"), help="PNG of --plot (contact_sheet.png)"
    )
    parser.add_argument(
        "--describe", type=flags.path, metavar="YAML", help="file for a guessed description of one FILE"
    )
    args = parser.parse_args()
    if args.describe is not None:
        if len(args.paths) > 1:
            parser.error(f"--describe takes one file, got {len(args.paths)}; describe each kind of file by itself")
        from matey.commands.describe_data import main as describe_data

        return describe_data(args.paths[0], args.describe, args.out if args.plot else None)
    from matey.commands.inspect_data import main as inspect_data

    return inspect_data(args.paths, args.out if args.plot else None)


if __name__ == "__main__":
    sys.exit(main())
