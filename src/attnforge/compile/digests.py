"""Digests of files, each read once in a process."""

from __future__ import annotations

import hashlib
import os

_known: dict[str, tuple[tuple[int, int, int], str]] = {}


def file_digest(path: str) -> str:
    """Return the hex SHA-256 of a file's bytes. It is read again only where it was changed. OSError."""
    found = os.stat(path)  # noqa: PTH116 - thousands of headers
    state = (found.st_ino, found.st_size, found.st_mtime_ns)
    known = _known.get(path)
    if known is None or known[0] != state:
        with open(path, "rb") as file:  # noqa: PTH123
            known = (state, hashlib.file_digest(file, "sha256").hexdigest())
        _known[path] = known
    return known[1]
