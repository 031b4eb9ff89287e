"""Whether a source tree compiles anything, as far as its files say so without being run.

Only a certain answer is given: a source that might compile something is treated as one that does.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

# Backends that make wheels for any Python, unless a hook of the project's own says otherwise: the keys of those hooks.
# https://hatch.pypa.io/latest/config/build/#build-hooks, https://python-poetry.org/docs/building-extension-modules/,
# https://backend.pdm-project.org/build_config/, https://docs.astral.sh/uv/concepts/build-backend/
_PURE_BACKENDS: dict[str, tuple[str, ...]] = {
    "flit_core.buildapi": (),
    "flit.buildapi": (),
    "uv_build": (),
    "hatchling.build": ("tool.hatch.build.hooks", "tool.hatch.build.targets.wheel.hooks"),
    "poetry.core.masonry.api": ("tool.poetry.build",),
    "pdm.backend": ("tool.pdm.build",),
}
_SETUPTOOLS = ("", "setuptools.build_meta", "setuptools.build_meta:__legacy__")
_SETUPTOOLS_HOOKS = ("tool.setuptools.ext-modules", "tool.setuptools.cmdclass", "tool.setuptools-rust", "tool.cffi")

# Requirements of a build that are there to compile something.
_COMPILERS = re.compile(
    r"\s*(?:torch|cython|cffi|pybind11|nanobind|setuptools[-_]rust|scikit[-_]build\S*|cmake|ninja|mypy|numpy|jax|tvm\S*)\b",
    re.IGNORECASE,
)

# Names in a setup.py with which modules are compiled: setuptools, "Building Extension Modules", and
# torch.utils.cpp_extension.
_EXTENSIONS = re.compile(
    r"ext_modules|ext_package|\w*Extension|cpp_extension|build_ext|build_clib|cythonize|cffi_modules|rust_extensions|mypycify"
    r"|cmake\w*|skbuild|pybind11|libraries|has_ext_modules|is_pure|root_is_pure|scikit\w*",
    re.IGNORECASE,
)
# Names with which a setup.py can do anything at all, and mostly does something harmless.
_ANYTHING = {
    "cmdclass",
    "distclass",
    "exec",
    "execfile",
    "eval",
    "runpy",
    "subprocess",
    "system",
    "popen",
    "torch",
    "urlretrieve",
}
_ANYTHING |= {"__import__", "importlib", "ctypes", "urllib", "requests"}

# Files that a build compiles, or puts into a wheel compiled already.
_SOURCES = (".c", ".cc", ".cpp", ".cxx", ".cu", ".pyx", ".rs", ".go", ".f", ".f90", ".m", ".mm", ".s", ".asm", ".cmake")
_BINARIES = (".so", ".a", ".o", ".dll", ".dylib", ".pyd", ".cubin", ".fatbin")
# Those of them that run on Linux as they are: a wheel that packs one is for one platform, whoever compiled it.
_RUNNABLE = re.compile(r".*\.(?:so(?:\.\d+)*|cubin|fatbin)", re.IGNORECASE)
_BUILD_FILES = {"cmakelists.txt", "meson.build", "cargo.toml", "hatch.toml", "hatch_build.py", "pdm_build.py"}


def why_pure(files: Mapping[str, str], names: Collection[str]) -> str:
    """Return how it is known that a source compiles nothing, "" where it may.

    ``files`` has the texts of pyproject.toml, setup.py and setup.cfg, where they are there; ``names`` are the paths of
    all files.
    """
    project = _project(files.get("pyproject.toml", ""))
    if (
        project is None
        or compiled_before(names)
        or not ("setup.py" in files or "pyproject.toml" in files or "setup.cfg" in files)
    ):
        return ""
    system = project.get("build-system", {})
    if not isinstance(system, dict) or system.get("backend-path") or _asks_for_compilers(system):
        return ""
    backend = str(system.get("build-backend", ""))
    if backend in _PURE_BACKENDS:
        hooked = any(_at(project, key) is not None for key in _PURE_BACKENDS[backend])
        hooked = hooked or any(PurePosixPath(name).name.lower() in _BUILD_FILES for name in names)
        return "" if hooked else f"its backend is {backend}, without a hook that compiles"
    return _why_setuptools(project, files, names) if backend in _SETUPTOOLS else ""


def compiled_before(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of a source's paths that are compiled code already, sorted; tests' own are passed over."""
    found = (name for name in names if _RUNNABLE.fullmatch(name))
    return tuple(sorted(name for name in found if not {"test", "tests"} & set(PurePosixPath(name).parts)))


def _why_setuptools(project: Mapping[str, Any], files: Mapping[str, str], names: Collection[str]) -> str:
    named = any(_at(project, key) is not None for key in _SETUPTOOLS_HOOKS)
    if named or _EXTENSIONS.search(files.get("setup.cfg", "")):
        return ""
    if "setup.py" not in files:
        return "its pyproject.toml names no extension module, and it has no setup.py"
    words = _words(files["setup.py"])
    if words is None or "setup" not in words or any(_EXTENSIONS.fullmatch(word) for word in words):
        return ""
    if not words & _ANYTHING:
        return "its setup.py names no extension module"
    return "" if any(map(_is_compiled, names)) else "it holds no file that a compiler takes"


def _is_compiled(name: str) -> bool:
    path = PurePosixPath(name.lower())
    return path.name in _BUILD_FILES or path.suffix in (*_SOURCES, *_BINARIES)


def _project(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return None


def _asks_for_compilers(system: Mapping[str, Any]) -> bool:
    required = system.get("requires", [])
    return not isinstance(required, list) or any(
        not isinstance(one, str) or _COMPILERS.match(one) is not None for one in required
    )


def _at(table: Mapping[str, Any], key: str) -> Any:
    """Return what is at a dotted key, None where nothing is."""
    found: Any = table
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _words(text: str) -> set[str] | None:
    """Return every name, attribute, keyword and imported module of a program, None where it can't be read.

    A call with ``**`` counts as one of ``cmdclass``: what it hands over is not known.
    """
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return {word for node in ast.walk(module) for word in _named(node)}


def _named(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.keyword):
        # What ** hands over is not known.
        yield node.arg or "ext_modules"
    elif isinstance(node, ast.alias):
        yield from node.name.split(".")
    elif isinstance(node, ast.ImportFrom):
        yield from (node.module or "").split(".")
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
        yield node.value
