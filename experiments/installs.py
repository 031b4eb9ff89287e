"""Installs a universal wheel into a clean environment of each of its pairs, and imports it there.

    python experiments/installs.py WHEEL [--import NAME ...]

For each pair of PyTorch and Python that the wheel holds: a new virtual environment with that Python, into which uv
installs that PyTorch and the wheel with all that it requires; then NAME is imported (default: the wheel's own modules).
No GPU is needed. A line for each pair; exit code 1 if one fails. The indexes are those that pip and uv are configured
with; each environment is removed again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from attnforge import AttnforgeError, Machine
from attnforge.model.universal import Pair
from attnforge.wheelfile.embedded import read_universal

_IMPORT = "import importlib, sys; print([importlib.import_module(name).__file__ for name in sys.argv[1:]][-1])"


def main(arguments: Sequence[str]) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--import", dest="names", action="append", metavar="NAME")
    given = parser.parse_args(arguments)
    universal = read_universal(given.wheel)
    if universal is None:
        parser.error(f"{given.wheel.name} is no universal wheel")
    names = [*(given.names or []), *(module.name for module in universal.modules)]
    machine = Machine(os.environ)
    good = [tried(machine, given.wheel.resolve(), pair, names) for pair in universal.pairs]
    print(f"{sum(good)} of {len(good)} pairs import {', '.join(names)}")
    return 0 if all(good) else 1


def tried(machine: Machine, wheel: Path, pair: Pair, names: Sequence[str]) -> bool:
    """Say whether a pair's environment installs and imports the wheel, and print what was seen."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=machine.folders.ensure().environments) as made:
        venv = Path(made) / "venv"
        fitting = [found.path for found in machine.host.interpreters if found.version.startswith(f"{pair.python}.")]
        try:
            machine.uv.venv(venv, fitting[0] if fitting else pair.python)
            machine.uv.install(venv / "bin" / "python", (f"torch=={pair.torch}", str(wheel)))
        except AttnforgeError as error:
            print(f"{pair}: {error}")
            return False
        argv = [str(venv / "bin" / "python"), "-I", "-c", _IMPORT, *names]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=made, check=False)
    told = done.stdout.strip().rpartition("site-packages/")[2] if done.returncode == 0 else done.stderr.strip()
    print(f"{pair}: {told}, {time.monotonic() - began:.0f} s", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
