"""Python interpreters on this machine, and whether extensions can be compiled for them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from attnforge.host.programs import Programs, is_executable
from attnforge.model.host import Interpreter

Map = Callable[[Callable[[Path], Interpreter | None], Iterable[Path]], Iterable[Interpreter | None]]

_NAME = re.compile(r"python3(?:\.\d+)?")
_OLDEST = (3, 9)
"""No PyTorch with CUDA 11.8 or later exists for an older Python (knowledge/torch.toml)."""

_QUESTION = (
    "import sys, sysconfig, os; include = sysconfig.get_paths()['include'];"
    "free = 't' if sysconfig.get_config_var('Py_GIL_DISABLED') else '';"
    "print('%d.%d.%d' % sys.version_info[:3] + free, int(os.path.isfile(os.path.join(include, 'Python.h'))))"
)
_ANSWER = re.compile(r"^(?P<version>3\.\d+\.\d+)(?P<free>t?) (?P<headers>[01])$", re.MULTILINE)


def find_interpreters(programs: Programs, uv: str, each: Map = map) -> tuple[Interpreter, ...]:
    """Return the interpreters of PATH, of pyenv and of uv from Python 3.9 on, each real file once.

    ``uv`` is the path of uv, "" for none. ``each`` maps a function over paths: a thread pool's map asks at once.
    """
    paths = dict.fromkeys(path.resolve() for path in _candidates(programs, uv) if is_executable(path))
    found = each(lambda path: _interpreter(programs, path), paths)
    return tuple(interpreter for interpreter in found if interpreter is not None)


def on_path(programs: Programs) -> Iterator[Path]:
    """Return the interpreters on PATH except pyenv's shims: slow scripts that fail for versions not activated."""
    shims = _pyenv(programs) / "shims"
    return (path for path in programs.find_all(_NAME) if path.parent != shims)


def _candidates(programs: Programs, uv: str) -> Iterator[Path]:
    yield from on_path(programs)
    for folder in sorted((_pyenv(programs) / "versions").glob("3.*")):
        if _recent(folder.name):
            yield folder / "bin/python3"
    yield from _managed_by_uv(programs, uv)


def _pyenv(programs: Programs) -> Path:
    environ = programs.environ
    return Path(environ.get("PYENV_ROOT") or Path(environ.get("HOME") or "/") / ".pyenv")


def _managed_by_uv(programs: Programs, uv: str) -> list[Path]:
    if not uv:
        return []
    listing = ("python", "list", "--only-installed", "--offline", "--managed-python", "--output-format", "json")
    # With a PATH uv asks every interpreter on it as well, which takes seconds.
    lines = programs.ask(uv, *listing, path="").splitlines()
    try:
        found = json.loads(next((line for line in lines if line.startswith("[")), "[]"))
        return [Path(entry["path"]) for entry in found]
    except (ValueError, KeyError, TypeError):
        return []


def _interpreter(programs: Programs, path: Path) -> Interpreter | None:
    match = _ANSWER.search(programs.ask(path, "-I", "-S", "-c", _QUESTION))
    if match is None or not _recent(match["version"]):
        return None
    headers, free = match["headers"] == "1", bool(match["free"])
    return Interpreter(path=str(path), version=match["version"], has_headers=headers, free_threaded=free)


def _recent(version: str) -> bool:
    match = re.match(r"(\d+)\.(\d+)", version)
    return match is not None and (int(match[1]), int(match[2])) >= _OLDEST
