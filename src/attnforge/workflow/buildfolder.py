"""The folder of a build: one build at a time works there, and keeps a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from attnforge.files import disk_errors
from attnforge.model.events import Message, Observer

_HINT = "free space there, or set ATTNFORGE_CACHE and TMPDIR to folders with space; finished objects are kept"


@contextmanager
def working_in(folder: Path, observe: Observer) -> Iterator[IO[str]]:
    """Make the folder of a build and yield its log. Other builds there wait. HostError for a bad disk."""
    with disk_errors(folder, _HINT), _alone(folder, observe):
        log_path = folder / "log.txt"
        observe(Message("info", f"log: {log_path}"))
        with log_path.open("a", encoding="utf-8") as log:
            yield log


@contextmanager
def _alone(folder: Path, observe: Observer) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(folder.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        observe(Message("info", "another build of the same plan is running; waiting for it"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
