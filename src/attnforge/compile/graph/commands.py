"""Reads and changes the commands of units: how they are split, what they compile, where they write."""

from __future__ import annotations

import os
import posixpath
import re
import shlex
from collections.abc import Callable, Sequence
from typing import NoReturn

from attnforge.model.graph import Language, Unit

# A command that means the same without a shell: quoted strings without expansions, escapes, and characters that no
# shell reads. "[" is allowed: nvcc's code=[sm_80,compute_80] is a glob to a shell, and one that matches nothing.
_NO_SHELL = re.compile(
    r"""(?: '[^']*' | "(?:[^"\\$`]|\\.)*" | \\.
          | (?<!\S)[^\s'"\\$`&;|<>()*?#~!{]   # the first character of a word
          | (?<=\S)[^\s'"\\$`&;|<>()*?]++
          | [ ] )*""",
    re.VERBOSE | re.DOTALL,
)
_ENVIRONMENT_FIRST = re.compile(r"\s*[A-Za-z_]\w*=")


def arguments(command: str, fail: Callable[[str], NoReturn]) -> tuple[str, ...]:
    """Split a command as a shell would. A command that uses more of a shell than quotes is run by one."""
    if not command.strip():
        fail("the command is empty")
    if _ENVIRONMENT_FIRST.match(command) or _NO_SHELL.fullmatch(command) is None:
        return ("/bin/sh", "-c", command)
    return tuple(shlex.split(command))


_CUDA_SUFFIXES = frozenset((".cu",))
_CXX_SUFFIXES = frozenset((".c", ".cc", ".cpp", ".cxx", ".c++", ".C"))


def language(argv: tuple[str, ...], sources: tuple[str, ...]) -> Language:
    """Tell what a command does, by its program and its sources' suffixes."""
    if "-dlink" in argv or "--device-link" in argv:
        return Language.DEVICE_LINK
    suffixes = {posixpath.splitext(source)[1] for source in sources}
    if argv[0] == "/bin/sh" or not suffixes:
        return Language.OTHER
    if suffixes <= _CUDA_SUFFIXES:
        return Language.CUDA
    return Language.CXX if suffixes <= _CXX_SUFFIXES and "-c" in argv else Language.OTHER


_CODE = re.compile(r"(?:^|,)code=(?:\[)?(sm_\w+)")


def codes(argv: Sequence[str]) -> tuple[str, ...]:
    """Return the architectures of an nvcc call (``sm_90``), as far as its ``-gencode`` options tell."""
    return tuple(dict.fromkeys(match[1] for word in argv if (match := _CODE.search(word))))


def redirected(unit: Unit, output: str, depfile: str) -> tuple[str, ...] | None:
    """Return the unit's argv with other output paths; None if the option that names the output is not found.

    Options of gcc and nvcc: -o X, -oX, --output-file X or =X; -MF X, -MFX, --dependency-output X or =X.
    """
    found = False
    argv: list[str] = []
    rest = list(unit.argv)
    while rest:
        option, value, joined = _split(rest.pop(0))
        if value is None and option in _OUTPUT + _DEPFILE and rest:
            value = rest.pop(0)
        if value is None or (option in _OUTPUT and not _is_output(unit, value)):
            argv += [option] if value is None else _join(option, value, joined)
            continue
        found = found or option in _OUTPUT
        argv += _join(option, output if option in _OUTPUT else depfile, joined)
    return tuple(argv) if found else None


_OUTPUT = ("-o", "--output-file")
_DEPFILE = ("-MF", "--dependency-output")
_JOINED = re.compile(r"(?P<option>-o|-MF|--output-file|--dependency-output)(?P<equals>=?)(?P<value>.+)", re.DOTALL)


def _split(argument: str) -> tuple[str, str | None, str | None]:
    """Split an argument that holds its value; the third is what is between them, None for two arguments."""
    match = _JOINED.fullmatch(argument)
    if match is None or (match["option"].startswith("--") and not match["equals"]):
        return argument, None, None
    return match["option"], match["value"], match["equals"]


def _join(option: str, value: str, joined: str | None) -> list[str]:
    return [option, value] if joined is None else [option + joined + value]


def _is_output(unit: Unit, value: str) -> bool:
    return os.path.normpath(os.path.join(unit.cwd, value)) == unit.output  # noqa: PTH118 - Path would not normalize
