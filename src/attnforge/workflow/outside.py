"""Finds the program by which a source's build compiles, where that is not PyTorch's BuildExtension."""

from __future__ import annotations

import ast
from contextlib import suppress

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from attnforge.provision.metadata import build_requires

_BUILDERS = {
    "cmake": "CMake",
    "scikit-build": "CMake",
    "scikit-build-core": "CMake",
    "cmake-build-extension": "CMake",
    "py-build-cmake": "CMake",
    "meson": "Meson",
    "meson-python": "Meson",
    "bazel": "Bazel",
}
_PROGRAMS = {"cmake": "CMake", "make": "make", "meson": "Meson", "bazel": "Bazel"}


# CMake can write files for ninja, the others can't. Of several that are seen, the first one here is taken.
_BY_WEIGHT = ("make", "Bazel", "Meson", "CMake")


def other_builder(setup: str, pyproject: str) -> str:
    """Return the program by which a source's build compiles beside PyTorch's BuildExtension, "" where none is seen.

    ``setup`` and ``pyproject`` are the texts of setup.py and pyproject.toml, "" for none. "make" also where CMake is
    told to write its files.
    """
    found = {_required(pyproject), *_called(setup)}
    if "CMake" in found and "Makefiles" in setup + pyproject:
        return "make"
    return next((builder for builder in _BY_WEIGHT if builder in found), "")


def generator(builder: str) -> dict[str, str]:
    """Return variables for upstream's build with which CMake calls the ninja of this build instead of make."""
    return {"CMAKE_GENERATOR": "Ninja"} if builder == "CMake" else {}


def outside_warning(builder: str, *, chosen: bool = False) -> str:
    """Return the warning for a build that compiles by such a program.

    ``chosen`` says that its recipe has ``outside = true``; then CMake is not told which program to call.
    """
    if chosen:
        return f"this package's build compiles with {builder}, and its recipe says `outside = true`: {_LACKS}"
    refused = (
        f"{_LACKS}; the audit refuses the wheel if nothing else was compiled, unless a recipe says `outside = true`"
    )
    if builder == "CMake":
        return f"this package's build compiles with CMake, which is made to call this build's ninja; {refused}"
    return f"this package's build compiles with {builder}; {refused}"


_LACKS = (
    "what is compiled without that ninja has no progress, no memory limit and no cache here, and begins from scratch"
    " after Ctrl-C"
)


def _required(pyproject: str) -> str:
    with suppress(ValueError, RecursionError):
        for text in build_requires(pyproject):
            found = _BUILDERS.get(canonicalize_name(Requirement(text).name))
            if found:
                return found
    return ""


def _called(setup: str) -> set[str]:
    """Return the programs that lists of a command's words in setup.py begin with."""
    found: set[str] = set()
    with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        for node in ast.walk(ast.parse(setup)):
            match node:
                case ast.List(elts=[first, *_]) | ast.Tuple(elts=[first, *_]):
                    found.add(_program(first))
                case ast.Call(args=[first, *_], func=ast.Attribute()):
                    found.add(_program(first))
    return found - {""}


def _program(node: ast.expr) -> str:
    text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
    words = text.split(maxsplit=1)
    return _PROGRAMS.get(words[0], "") if words else ""
