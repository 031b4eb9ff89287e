"""The name and version of a source tree, as far as its files state them. Nothing is run."""

from __future__ import annotations

import ast
import configparser
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from attnforge.model.versions import applies, as_requirement
from attnforge.wheelfile.metadata import fields_of

FILES = ("PKG-INFO", "pyproject.toml", "setup.cfg", "setup.py")
"""The files that state them, the most trustworthy first."""

Named = tuple[str, str]


def static_metadata(files: Mapping[str, str]) -> Named:
    """Return name and version, "" for what is not stated. ``files`` maps some of FILES to their texts."""
    stated = [reader(files[name]) for name, reader in _READERS.items() if name in files]
    name = next((name for name, _ in stated if name), "")
    version = next((version for _, version in stated if version), "")
    return name, version


def build_requires(text: str) -> tuple[str, ...]:
    """Return ``requires`` of ``[build-system]`` in a pyproject.toml; ValueError where it is not what PEP 518 says."""
    try:
        system = tomllib.loads(text).get("build-system", {})
    except RecursionError as error:
        raise ValueError("its tables are nested too deep") from error
    required = system.get("requires", []) if isinstance(system, dict) else None
    if not isinstance(required, list) or not all(isinstance(one, str) for one in required):
        raise ValueError("[build-system] has to be a table, and requires a list of texts in it")
    if not isinstance(system.get("build-backend", ""), str):
        raise ValueError("build-backend of [build-system] has to be a text")
    for one in required:
        Requirement(one)
    return tuple(required)


def torch_bounds(files: Mapping[str, str]) -> tuple[Requirement, ...]:
    """Return what a source asks of torch: to build it (pyproject.toml), and where it runs (PKG-INFO, pyproject.toml).

    What is asked for an extra, or on another platform, is left out, and what is no requirement.
    """
    asked = (one for text in _stated(files) if (one := as_requirement(text)) is not None)
    bounds = (one for one in asked if canonicalize_name(one.name) == "torch" and one.specifier)
    return tuple({str(one.specifier): one for one in bounds if applies(one)}.values())


def _stated(files: Mapping[str, str]) -> Iterator[str]:
    text = files.get("pyproject.toml", "")
    with suppress(ValueError):
        yield from build_requires(text)
    with suppress(ValueError, RecursionError):
        project = tomllib.loads(text).get("project", {})
        depends = project.get("dependencies", []) if isinstance(project, dict) else []
        yield from filter(None, map(_text, depends if isinstance(depends, list) else ()))
    yield from fields_of(files.get("PKG-INFO", "")).get("requires_dist", ())


def _pkg_info(text: str) -> Named:
    fields = fields_of(text)
    return fields.get("name", "").strip(), fields.get("version", "").strip()


def _pyproject(text: str) -> Named:
    try:
        project = tomllib.loads(text).get("project", {})
    except (ValueError, RecursionError):
        return "", ""
    return (_text(project.get("name")), _text(project.get("version"))) if isinstance(project, dict) else ("", "")


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _setup_cfg(text: str) -> Named:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error:
        return "", ""
    name, version = (parser.get("metadata", key, fallback="").strip() for key in ("name", "version"))
    return name, "" if version.startswith(("attr:", "file:")) else version


def _setup_py(text: str) -> Named:
    """Read the call of setup(): texts, and names of texts that the module assigns at its top level."""
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "", ""
    constants = _constants(module)
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and _called(node.func) == "setup":
            given = {word.arg: _value(word.value, constants) for word in node.keywords}
            return given.get("name", ""), given.get("version", "")
    return "", ""


def _constants(module: ast.Module) -> dict[str, str]:
    return {
        target.id: statement.value.value
        for statement in module.body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _value(node: ast.expr, constants: Mapping[str, str]) -> str:
    if isinstance(node, ast.Name):
        return constants.get(node.id, "")
    return _text(node.value) if isinstance(node, ast.Constant) else ""


_READERS: dict[str, Callable[[str], Any]] = {
    "PKG-INFO": _pkg_info,
    "pyproject.toml": _pyproject,
    "setup.cfg": _setup_cfg,
    "setup.py": _setup_py,
}
