"""Says before anything is compiled that a source's build compiles by itself, as far as its files show it."""

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


def other_builder(setup: str, pyproject: str) -> str:
    """Return the program by which a source's build compiles beside PyTorch's BuildExtension, "" where none is seen.

    ``setup`` and ``pyproject`` are the texts of setup.py and pyproject.toml, "" for none.
    """
    return _required(pyproject) or _called(setup)


def outside_warning(builder: str) -> str:
    """Return what is to be said of a build that compiles by such a program."""
    return (
        f"this package's build compiles with {builder}: such compiles have no progress, no memory limit and no cache"
        " here, and begin from scratch after Ctrl-C; the audit refuses the wheel if nothing else was compiled,"
        " unless a recipe says `outside = true` (docs/recipes.md)"
    )


def _required(pyproject: str) -> str:
    with suppress(ValueError, RecursionError):
        for text in build_requires(pyproject):
            found = _BUILDERS.get(canonicalize_name(Requirement(text).name))
            if found:
                return found
    return ""


def _called(setup: str) -> str:
    """Return the program that a list of a command's words in setup.py begins with."""
    with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        for node in ast.walk(ast.parse(setup)):
            match node:
                case ast.List(elts=[first, *_]) | ast.Tuple(elts=[first, *_]):
                    found = _program(first)
                case ast.Call(args=[first, *_], func=ast.Attribute()):
                    found = _program(first)
                case _:
                    found = ""
            if found:
                return found
    return ""


def _program(node: ast.expr) -> str:
    text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
    words = text.split(maxsplit=1)
    return _PROGRAMS.get(words[0], "") if words else ""
