"""Shared stores in memory for tests: one that works, and one whose operations fail or hang when told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attnforge.compile.reuse.cache import Limits

# Long enough for a loaded machine to answer from memory, short enough to wait for in a test.
QUICK = Limits(lookup_seconds=0.05, upload_seconds=0.05)
PATIENT = Limits(lookup_seconds=30, upload_seconds=30)


class MemoryRemote:
    """A store in memory. ``before`` runs before each operation, with its name and path: it may wait or raise."""

    name = "memory://store"

    def __init__(self, before: Callable[[str, str], None] = lambda operation, path: None) -> None:
        self.blobs: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.before = before

    def _called(self, operation: str, path: str) -> None:
        self.calls.append(operation)
        self.before(operation, path)

    def read(self, path: str) -> bytes | None:
        self._called("read", path)
        return self.blobs.get(path)

    def write(self, path: str, blob: bytes) -> None:
        self._called("write", path)
        self.blobs[path] = blob

    def delete(self, path: str) -> None:
        self._called("delete", path)
        self.blobs.pop(path, None)


def failing(*operations: str) -> Callable[[str, str], None]:
    """Let these operations fail, with credentials in the message."""

    def before(operation: str, path: str) -> None:
        if operation in operations:
            raise ConnectionError("https://user:hunter2@store refused")

    return before


@contextmanager
def hanging(*operations: str) -> Iterator[Callable[[str, str], None]]:
    """Let these operations hang until the end of the block."""
    over = threading.Event()

    def before(operation: str, path: str) -> None:
        if operation in operations:
            over.wait()

    try:
        yield before
    finally:
        over.set()
