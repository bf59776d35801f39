"""Runs a script and then prints the packages that it has imported."""

import runpy
import sys


def main():
    sys.argv = sys.argv[1:]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        print("imported:", *sorted({name.split(".")[0] for name in sys.modules}))  # noqa: T201


if __name__ == "__main__":
    main()
