"""Sees to it that modules share the C++ library of the process, where the compiler would put a copy into each.

A g++ whose installation has ``libstdc++.a`` and no ``libstdc++.so`` (an image that was slimmed, for example) links the
archive without a word. Such a module exports a C++ library of its own beside the one that PyTorch and Python have
loaded, and the two get mixed up: numbers are missing from messages, or the process ends with a segmentation fault
where an error should be raised. Kernels compute the right thing all the same, so nothing shows before the first error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attnforge.process import Command, Runner
from attnforge.provision.hostpath import host_path

RUNTIME = "libstdc++.so.6"
"""The shared library's soname, which PyTorch's libraries need."""

_FOR_LINKER = "libstdc++.so"


def shared_runtime(compiler: str, folder: Path, runner: Runner, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the linker options with which ``compiler`` (a path) links the shared C++ library; mostly none.

    Where the compiler has the shared library and lacks only its name for the linker, that name is made in ``folder``.
    """
    if _found(compiler, _FOR_LINKER, folder, runner, environ):
        return ()
    library = _found(compiler, RUNTIME, folder, runner, environ)
    if library is None:
        return ()  # another C++ library, or none: the audit says what the module then holds
    name = folder / _FOR_LINKER
    name.unlink(missing_ok=True)
    name.symlink_to(library.resolve())
    return (f"-L{folder}",)


def _found(compiler: str, name: str, folder: Path, runner: Runner, environ: Mapping[str, str]) -> Path | None:
    """Return the file that the compiler takes for a library's name; it answers with the bare name where it has none."""
    argv = (compiler, f"-print-file-name={name}")
    outcome = runner(Command(argv, folder, {**environ, "PATH": host_path(compiler)}, timeout=60))
    answer = Path(outcome.output.strip())
    return answer if outcome.ok and answer.is_absolute() and answer.exists() else None
