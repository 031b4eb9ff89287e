"""Options from the environment and from ``[tool.attnforge]`` in a pyproject.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from attnforge.errors import RequestError
from attnforge.options import OPTIONS

# Variables of ours that are no target option. Secrets are variables alone: a command line can be seen by others.
_OTHER_VARIABLES = (
    "ATTNFORGE_CACHE",
    "ATTNFORGE_OUT",
    "ATTNFORGE_STORE_PASSWORD",
    "ATTNFORGE_STORE_SECRET",
    "ATTNFORGE_STORE_TOKEN",
    "ATTNFORGE_STORE_USER",
)


def from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what ATTNFORGE_* variables set, by option name; RequestError for one that does not exist."""
    known = {option.variable: option.name for option in OPTIONS}
    found = {}
    for variable, value in environ.items():
        if not variable.startswith("ATTNFORGE_") or variable in _OTHER_VARIABLES or not value:
            continue
        if variable not in known:
            raise _unknown(f"the environment variable {variable}", variable, [*known, *_OTHER_VARIABLES])
        found[known[variable]] = value
    return found


def from_project(folder: Path) -> dict[str, Any]:
    """Return ``[tool.attnforge]`` of the nearest pyproject.toml upward; RequestError for a key that does not exist."""
    for place in (folder, *folder.parents):
        path = place / "pyproject.toml"
        if path.is_file():
            return _table(path)
    return {}


def _table(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise RequestError(
            f"{path} can't be read", why=str(error), hint="mend the file, or run in another folder"
        ) from (error)
    table = document.get("tool", {}).get("attnforge", {})
    names = [*(option.name for option in OPTIONS), "out"]
    for key in table:
        if key not in names:
            raise _unknown(f"the key {key!r} in [tool.attnforge] of {path}", key, names)
    return dict(table)


def _unknown(what: str, key: str, names: list[str]) -> RequestError:
    near = get_close_matches(key, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
    return RequestError(f"{what} is not known", hint=hint)
