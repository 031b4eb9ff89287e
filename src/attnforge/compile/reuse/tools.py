"""Identifies the programs that make a unit's object, by their contents."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from attnforge import process
from attnforge.compile.nvcc.dryrun import UnknownStepsError, dryrun_argv, parse
from attnforge.files import known_sha256
from attnforge.model.graph import Language, Unit
from attnforge.process import Command, Runner

Digests = dict[str, str]

_ANSWER_SECONDS = 60.0
_CCBIN = re.compile(r"(?:-ccbin|--compiler-bindir)(?P<value>=.*)?")
_ASKED_BY_NVCC = re.compile(r"NVCC_\w+|PATH")


class Tools:
    """Asks compilers which programs they run, each once."""

    def __init__(self, run: Runner = process.run) -> None:
        """Ask by ``run``."""
        self._run = run
        self._nvcc: dict[tuple[object, ...], Digests | None] = {}
        self._hosts: dict[str, Digests | None] = {}

    def of(self, unit: Unit, environment: Mapping[str, str]) -> Digests | None:
        """Return the SHA-256 of each program that compiles the unit, by its name; None if one is not known.

        For nvcc: what its dry run names, and the host compiler's. For a host compiler: itself, with its version (a
        clang may be a small program with a large library), cc1plus and the assembler.
        """
        try:
            if unit.language is Language.CUDA:
                return self._of_nvcc(unit, environment)
            return self._of_host(unit.argv[0], environment) if unit.language is Language.CXX else None
        except OSError:
            return None

    def _of_nvcc(self, unit: Unit, environment: Mapping[str, str]) -> Digests | None:
        read = {name: value for name, value in environment.items() if _ASKED_BY_NVCC.fullmatch(name)}
        call = (unit.argv[0], *_ccbin(unit.argv))
        asked = (call, tuple(sorted(read.items())))
        if asked not in self._nvcc:
            self._nvcc[asked] = self._ask_nvcc(call, environment)
        return self._nvcc[asked]

    def _ask_nvcc(self, call: Sequence[str], environment: Mapping[str, str]) -> Digests | None:
        example = ("-x", "cu", "-c", os.devnull, "-o", os.devnull)
        try:
            listing = parse(self._answer(dryrun_argv((*call, *example)), environment))
        except UnknownStepsError:
            return None
        within = {**environment, **listing.environment}
        digests: Digests = {}
        for program in {command[0] for command in listing.commands} - {"rm"}:
            name = PurePosixPath(program).name
            found = {name: _program(program, within)} if name in _OF_NVCC else self._of_host(program, within)
            if found is None:
                return None
            digests.update({name: digest for name, digest in found.items() if digest})
        nvcc = f"{listing.environment.get('_HERE_', '')}/nvcc"
        digests["nvcc"] = _program(nvcc if Path(nvcc).is_file() else call[0], within)
        return digests if digests.keys() >= _OF_NVCC and "" not in digests.values() else None

    def _of_host(self, driver: str, environment: Mapping[str, str]) -> Digests | None:
        path = shutil.which(driver, path=environment.get("PATH", os.defpath))
        if path is None:
            return None
        if path not in self._hosts:
            self._hosts[path] = self._ask_host(path, environment)
        return self._hosts[path]

    def _ask_host(self, path: str, environment: Mapping[str, str]) -> Digests | None:
        version = self._answer((path, "--version"), environment)
        if not version:
            return None
        parts = {part: self._answer((path, f"-print-prog-name={part}"), environment).strip() for part in _OF_HOST}
        digests = {part: _program(program, environment) for part, program in parts.items() if program}
        return {"c++": known_sha256(path), "version": version, **{part: of for part, of in digests.items() if of}}

    def _answer(self, argv: Sequence[str], environment: Mapping[str, str]) -> str:
        outcome = self._run(Command(tuple(argv), Path("/"), environment, _ANSWER_SECONDS))
        return outcome.output if outcome.ok else ""


_OF_NVCC = frozenset({"cudafe++", "cicc", "ptxas", "fatbinary"})
_OF_HOST = ("cc1plus", "as")


def _ccbin(argv: Sequence[str]) -> tuple[str, ...]:
    """Return the words of an nvcc call that name its host compiler."""
    for at, word in enumerate(argv):
        match = _CCBIN.fullmatch(word)
        if match:
            return (word,) if match["value"] else tuple(argv[at : at + 2])
    return ()


def _program(program: str, environment: Mapping[str, str]) -> str:
    """Return the digest of a program; "" if it is not found, or is a script: nobody knows what that runs."""
    path = shutil.which(program, path=environment.get("PATH", os.defpath))
    return known_sha256(path) if path and not is_script(path) else ""


def is_script(path: str) -> bool:
    """Say whether a program is a script. OSError."""
    with Path(path).open("rb") as file:
        return file.read(2) == b"#!"
