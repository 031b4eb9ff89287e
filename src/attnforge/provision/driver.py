"""A stand-in for the driver's library, so that ``-lcuda`` links on a machine that has no driver.

It is never shipped: a module that is linked against it asks for ``libcuda.so.1``, which the driver of the machine
where it runs brings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from attnforge.errors import HostError
from attnforge.files import replacing
from attnforge.process import Command, Runner
from attnforge.provision.hostpath import host_path

SONAME = "libcuda.so.1"

# Where toolkits have one of NVIDIA's.
_STUBS = ("lib64/stubs/libcuda.so", "lib/stubs/libcuda.so", "targets/x86_64-linux/lib/stubs/libcuda.so")

_DECLARED = re.compile(r"\bCUresult\s+(cu[A-Z]\w*)\s*\(")


def provide_driver_stub(home: Path, compiler: str, folder: Path, runner: Runner, environ: Mapping[str, str]) -> Path:
    """Return a folder with a ``libcuda.so`` for the linker, made in ``folder``: the toolkit's own, or one of ours.

    Ours exports what the toolkit's cuda.h declares, so that a symbol that is there at run time is there for the linker.
    HostError where the compiler can't make it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "libcuda.so"
    library.unlink(missing_ok=True)
    known = next((home / name for name in _STUBS if (home / name).is_file()), None)
    if known is not None:
        library.symlink_to(known)
        return folder
    header = home / "include" / "cuda.h"
    source = folder / "stub.c"
    symbols = _declared(header, compiler, folder, runner, environ) if header.is_file() else ()
    source.write_text("".join(f"void {symbol}(void) {{}}\n" for symbol in symbols), encoding="utf-8")
    with replacing(library) as made:
        words = ("-x", "c", "-shared", "-fPIC", "-nostdlib", f"-Wl,-soname,{SONAME}", "-o", str(made), str(source))
        _run((compiler, *words), folder, runner, environ)
    return folder


def _declared(header: Path, compiler: str, folder: Path, runner: Runner, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the functions that cuda.h declares, by the names that its macros give them (cuMemAlloc_v2)."""
    output = _run((compiler, "-E", "-P", "-x", "c++", str(header)), folder, runner, environ)
    return tuple(sorted(set(_DECLARED.findall(output))))


def _run(argv: tuple[str, ...], folder: Path, runner: Runner, environ: Mapping[str, str]) -> str:
    # Temporary files beside the library: it is needed whether or not compilers have space for theirs.
    variables = {**environ, "PATH": host_path(argv[0]), "TMPDIR": str(folder)}
    outcome = runner(Command(argv, folder, variables, timeout=120))
    if not outcome.ok:
        raise HostError(
            "a stand-in for the driver's library could not be made",
            why=outcome.output.strip()[-500:],
            hint="free space there, or set ATTNFORGE_CACHE; `attnforge doctor` says what else is missing",
        )
    return outcome.output
