"""Entries of the cache: made once under a lock, marked complete last, remade where a maker was killed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attnforge.files import disk_errors, write_whole

_MARKER = "complete.json"

Facts = dict[str, Any]


@contextmanager
def locked(entry: Path) -> Iterator[None]:
    """Hold the lock of a cache entry; a second process waits here until the first is done."""
    from filelock import FileLock

    with disk_errors(entry.parent):
        entry.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(entry.parent / f"{entry.name}.lock")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def provide(entry: Path, make: Callable[[Path], Facts], healthy: Callable[[Facts], bool] = lambda _: True) -> Facts:
    """Return the facts of a complete entry; where it is absent, half made or not ``healthy``, make it first.

    ``make`` fills the empty folder that it is given and returns facts of JSON types. A complete entry takes no lock,
    so a cache that can't be written still serves what it holds. HostError where the disk is full or read-only.
    """
    facts = _complete(entry, healthy)
    if facts is not None:
        return facts
    with locked(entry), disk_errors(entry):
        facts = _complete(entry, healthy)
        return facts if facts is not None else _make(entry, make)


def facts_of(entry: Path) -> Facts:
    """Return the facts of an entry that was finished, healthy or not; none of any other."""
    return _complete(entry, lambda _: True) or {}


def is_complete(entry: Path) -> bool:
    """Say whether an entry was finished, without asking whether it is still healthy."""
    return (entry / _MARKER).is_file()


def _complete(entry: Path, healthy: Callable[[Facts], bool]) -> Facts | None:
    try:
        facts = json.loads((entry / _MARKER).read_text(encoding="utf-8"))
        return facts if isinstance(facts, dict) and healthy(facts) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _make(entry: Path, make: Callable[[Path], Facts]) -> Facts:
    if entry.exists():
        shutil.rmtree(entry)
    entry.mkdir(parents=True)
    facts = make(entry)
    write_whole(entry / _MARKER, json.dumps(facts, indent=1, sort_keys=True) + "\n")
    return facts
