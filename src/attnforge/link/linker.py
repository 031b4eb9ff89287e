"""Runs objcopy and the linker: the kernels library of a module, and a module for each pair."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from attnforge import process
from attnforge.elf import Elf
from attnforge.errors import BuildError, HostError
from attnforge.files import file_sha256
from attnforge.link.partition import Partition
from attnforge.link.words import (
    DIGEST_LENGTH,
    crossing_name,
    exports,
    library_command,
    library_name,
    module_command,
    moved_rpath,
    renames,
)
from attnforge.model.universal import LIBRARY

_RUNTIME = "libcudart_static.a"
_TOOLS = "/usr/bin:/bin"  # where a compiler's binutils are
_LAYOUT = 1  # raised when what is made of the same objects changes


@dataclass(frozen=True, slots=True)
class Library:
    """A kernels library on this machine: the file, whose name is its soname, and the digest in its name."""

    path: Path

    @property
    def digest(self) -> str:
        """The hex digits that its symbols end in."""
        found = LIBRARY.fullmatch(self.path.name)
        assert found is not None, self.path
        return found["digest"]


@dataclass(frozen=True, slots=True)
class Linker:
    """The host compiler and its tools.

    ``libraries`` are the folders of the toolkit's libraries, ``driver`` that of a stub of the driver's. What is run
    goes into ``log``.
    """

    compiler: str
    libraries: tuple[Path, ...]
    driver: Path
    environ: Mapping[str, str]
    log: IO[str]
    runner: Callable[..., process.Outcome] = process.run

    def check(self, folder: Path) -> None:
        """Raise HostError if the machine lacks what linking takes: better before the kernels are compiled."""
        self._runtime()
        self._program("objcopy", folder)

    def library(self, module: str, parts: Partition, folder: Path) -> Library:
        """Link the kernels library of a module in ``folder``, which is emptied first. BuildError if that fails."""
        digest = _digest(parts, self._runtime())
        _empty(folder)
        objects = self._renamed([one.path for one in parts.shared], parts.crossing, digest, folder)
        # By its name in the working folder: a comma in a path would end an option that the compiler passes on.
        script = Path("exports")
        (folder / script).write_text(exports(crossing_name(one, digest) for one in parts.crossing), encoding="utf-8")
        name = library_name(module, digest)
        command = library_command(self.compiler, objects, script, name, self.libraries, self.driver)
        self._run(command, folder, f"the kernels library of {module}")
        return Library(folder / name)

    def module(
        self,
        name: str,
        objects: Sequence[Path],
        crossing: Sequence[str],
        library: Library | None,
        like: bytes,
        folder: Path,
    ) -> bytes:
        """Link the module of a pair in ``folder``, which is emptied first, and return its bytes.

        ``name`` is the leaf of the name that it is imported by. ``like`` is upstream's own module of this pair: what
        that one needs and where it looks for it, this one does.
        """
        _empty(folder)
        theirs = Elf.read(like)
        digest = library.digest if library else ""
        renamed = self._renamed(objects, crossing, digest, folder) if library else list(objects)
        script = Path("exports")
        (folder / script).write_text(exports([f"PyInit_{name}"]), encoding="utf-8")
        made = f"{name}.so"
        command = module_command(
            self.compiler,
            renamed,
            script,
            made,
            theirs.needed,
            moved_rpath(theirs.rpath, shared=library is not None),
            (*self.libraries, self.driver),
            library.path if library else None,
        )
        self._run(command, folder, f"the module {name}")
        return (folder / made).read_bytes()

    def _runtime(self) -> Path:
        runtime = next((place / _RUNTIME for place in self.libraries if (place / _RUNTIME).is_file()), None)
        if runtime is None:
            raise HostError(
                f"the CUDA toolkit has no {_RUNTIME}",
                why="the kernels library brings its own CUDA runtime, since it knows no PyTorch that would",
                hint="install the toolkit's cudart development package, or build with --toolchain pypi",
            )
        return runtime

    def _renamed(self, objects: Sequence[Path], symbols: Sequence[str], digest: str, folder: Path) -> list[Path]:
        """Return copies of objects in which what crosses has the names that only this library has."""
        names = folder / "renames"
        names.write_text(renames(symbols, digest), encoding="utf-8")
        program = self._program("objcopy", folder)
        copies = []
        for number, one in enumerate(objects):
            copy = folder / f"{number}.o"
            self._run((program, f"--redefine-syms={names}", str(one), str(copy)), folder, one.name)
            copies.append(copy)
        return copies

    def _program(self, name: str, folder: Path) -> str:
        """Return one of the compiler's binutils, as the compiler itself finds it."""
        told = self.runner(self._command((self.compiler, f"-print-prog-name={name}"), folder))
        found = shutil.which(told.output.strip() or name, path=self._path)
        if found is None:
            raise HostError(
                f"{name} is missing",
                why="it renames the functions that cross to the kernels library",
                hint="apt install binutils   (or: dnf install binutils)",
            )
        return found

    def _run(self, argv: Sequence[str], folder: Path, what: str) -> None:
        command = self._command(argv, folder)
        self.log.write(f"+ {command}\n")
        outcome = self.runner(command, self.log)
        if not outcome.ok:
            lines = [line for line in outcome.output.splitlines() if line.strip()]
            first = next((line for line in lines if "undefined" in line or "error" in line or "cannot" in line), "")
            raise BuildError(
                f"{what} can't be linked", why=first or (lines[-1] if lines else f"exit code {outcome.code}")
            )

    def _command(self, argv: Sequence[str], folder: Path) -> process.Command:
        variables = {**self.environ, "PATH": self._path, "TMPDIR": str(folder)}
        return process.Command(tuple(argv), folder, variables, timeout=3600)

    @property
    def _path(self) -> str:
        return os.pathsep.join((str(Path(self.compiler).parent), _TOOLS))


def _digest(parts: Partition, runtime: Path) -> str:
    """Return what names a library: all that it is made of, and nothing of where."""
    found = hashlib.sha256(f"{_LAYOUT}\n".encode())
    contents = sorted(file_sha256(one.path) for one in parts.shared)
    for part in (*contents, file_sha256(runtime), *parts.crossing):
        found.update(f"{part}\n".encode())
    return found.hexdigest()[:DIGEST_LENGTH]


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
