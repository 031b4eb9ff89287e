"""Options from the environment and from ``[tool.attnforge]`` in a pyproject.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from attnforge.errors import RequestError
from attnforge.options import OPTIONS, Settings

# Variables of ours that are no target option. Secrets are variables alone: a command line can be seen by others.
_OTHER_VARIABLES = (
    "ATTNFORGE_CACHE",
    "ATTNFORGE_OUT",
    "ATTNFORGE_STORE_PASSWORD",
    "ATTNFORGE_STORE_SECRET",
    "ATTNFORGE_STORE_TOKEN",
    "ATTNFORGE_STORE_USER",
)


def from_environment(environ: Mapping[str, str]) -> Settings:
    """Return what ATTNFORGE_* variables set, by option name; RequestError for one that does not exist."""
    known = {option.variable: option.name for option in OPTIONS}
    found = {}
    for variable, value in environ.items():
        if not variable.startswith("ATTNFORGE_") or variable in _OTHER_VARIABLES or not value:
            continue
        if variable not in known:
            raise _unknown(f"the environment variable {variable}", variable, [*known, *_OTHER_VARIABLES])
        found[known[variable]] = value
    variables = {name: variable for variable, name in known.items()}
    return Settings(found, variables.__getitem__)


def from_project(folder: Path) -> Settings:
    """Return ``[tool.attnforge]`` of the nearest pyproject.toml upward; RequestError for a key that does not exist."""
    for place in (folder, *folder.parents):
        path = place / "pyproject.toml"
        if path.is_file():
            return _table(path)
    return Settings({}, str)


def current_folder() -> Path:
    """Return the folder that attnforge runs in; RequestError where it has been removed."""
    try:
        return Path.cwd()
    except OSError as error:
        raise RequestError(
            "the current folder does not exist", why=str(error), hint="run attnforge in another folder"
        ) from error


def _table(path: Path) -> Settings:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise RequestError(
            f"{path} can't be read", why=str(error), hint="correct the file, or run in another folder"
        ) from error
    table = _inner(_inner(document, "tool", path), "attnforge", path)
    names = [*(option.name for option in OPTIONS), "out"]
    for key in table:
        if key not in names:
            raise _unknown(f"the key {key!r} in [tool.attnforge] of {path}", key, names)
    return Settings(table, lambda name: f"{name} in [tool.attnforge] of {path}")


def _inner(table: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    """Return a table in a table, an empty one where there is none."""
    inner = table.get(key, {})
    if not isinstance(inner, dict):
        raise RequestError(
            f"{key} in {path} has to be a table, and is {inner!r}", hint='for example: [tool.attnforge] gpu = ["H100"]'
        )
    return inner


def _unknown(what: str, key: str, names: list[str]) -> RequestError:
    near = get_close_matches(key, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
    return RequestError(f"{what} is not known", hint=hint)
