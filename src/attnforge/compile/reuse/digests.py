"""Digests of files: as they are now, or each read once in a process."""

from __future__ import annotations

import hashlib
import os

_known: dict[str, tuple[tuple[int, int, int], str]] = {}


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the hex SHA-256 of a file's bytes. OSError."""
    with open(path, "rb") as file:  # noqa: PTH123 - thousands of headers
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digest(path: str) -> str:
    """Return the hex SHA-256 of a file's bytes. It is read again only where it was changed. OSError."""
    found = os.stat(path)  # noqa: PTH116 - thousands of headers
    state = (found.st_ino, found.st_size, found.st_mtime_ns)
    known = _known.get(path)
    if known is None or known[0] != state:
        known = _known[path] = (state, file_sha256(path))
    return known[1]
