"""Options from the environment and from ``[tool.attnforge]`` in a pyproject.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from attnforge.errors import RequestError
from attnforge.options import OPTIONS, Settings

OTHER_VARIABLES = {
    "ATTNFORGE_CACHE": "the cache folder (default: `$XDG_CACHE_HOME/attnforge`, else `~/.cache/attnforge`)",
    "ATTNFORGE_OUT": "where wheels go, as `--out`",
    "ATTNFORGE_STORE_PASSWORD": "password for a Redis or WebDAV store",
    "ATTNFORGE_STORE_SECRET": "secret that seals compile results in a shared store",
    "ATTNFORGE_STORE_TOKEN": "bearer token for a WebDAV store",
    "ATTNFORGE_STORE_USER": "user for a Redis or WebDAV store",
}
"""The variables that are no target option. Secrets are only variables: other users can see a command line."""


def from_environment(environ: Mapping[str, str]) -> Settings:
    """Return what ATTNFORGE_* variables set, by option name; RequestError for one that does not exist."""
    known = {option.variable: option.name for option in OPTIONS}
    found = {}
    for variable, value in environ.items():
        if not variable.startswith("ATTNFORGE_") or variable in OTHER_VARIABLES or not value:
            continue
        if variable not in known:
            raise _unknown(f"the environment variable {variable}", variable, [*known, *OTHER_VARIABLES])
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
            f"{path} can't be read", why=str(error), hint="fix the file, or run in another folder"
        ) from error
    table = _inner(_inner(document, "tool", path), "attnforge", path)
    names = [*(option.name for option in OPTIONS), "out"]
    for key in table:
        if key not in names:
            raise _unknown(f"the key {key!r} in [tool.attnforge] of {path}", key, names)
    return Settings(table, lambda name: f"{name} in [tool.attnforge] of {path}")


def _inner(table: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    """Return the table under a key, or an empty one."""
    inner = table.get(key, {})
    if not isinstance(inner, dict):
        raise RequestError(
            f"{key} in {path} must be a table, not {inner!r}", hint='for example: [tool.attnforge] gpu = ["H100"]'
        )
    return inner


def _unknown(what: str, key: str, names: list[str]) -> RequestError:
    near = get_close_matches(key, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known names: {', '.join(names)}"
    return RequestError(f"{what} is unknown", hint=hint)
