"""Entries in a folder of this machine, shared by all builds of a user.

No lock is held to read or to write: a file appears whole or not at all, and what is in it proves itself.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from attnforge.compile.reuse.cache.entry import MAX_ENTRY_BYTES
from attnforge.compile.reuse.cache.notices import Notices
from attnforge.files import UNFINISHED, write_whole

_LOCK = ".lock"
_ABANDONED_SECONDS = 24 * 3600.0


class LocalStore:
    """Blobs by relative path (``ab/cdef...``) under a folder. No method raises OSError: it warns, once."""

    def __init__(self, folder: Path, limit_bytes: int, notices: Notices) -> None:
        """Use ``folder``, which is made when something is written; ``trim`` brings it down to ``limit_bytes``."""
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._notices = notices

    def read(self, path: str) -> bytes | None:
        """Return a blob and mark it as used; None if there is none or it can't be read."""
        try:
            data = read_bounded(self._folder / path)
        except OSError as error:
            self._warn("read", error)
            return None
        if data is not None:
            with suppress(OSError):  # a folder that is only readable serves too
                os.utime(self._folder / path)
        return data

    def write(self, path: str, blob: bytes) -> bool:
        """Write a blob; False if that failed."""
        try:
            write_whole(self._folder / path, blob)
        except OSError as error:
            self._warn("written", error)
            return False
        return True

    def discard(self, path: str) -> None:
        """Remove a blob, if it is there."""
        try:
            (self._folder / path).unlink(missing_ok=True)
        except OSError as error:
            self._warn("written", error)

    def trim(self) -> None:
        """Remove the blobs that were not used for longest, until the rest is within the limit.

        While another build does that, nothing is done.
        """
        from filelock import FileLock, Timeout

        if not self._folder.is_dir():
            return
        try:
            with FileLock(self._folder / _LOCK, blocking=False):
                self._trim()
        except Timeout:
            return
        except (OSError, NotImplementedError) as error:  # the latter from file systems without locks
            self._warn("trimmed", error)

    def _warn(self, done: str, error: Exception) -> None:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self._notices.once(done, f"the compile cache in {self._folder} can't be {done}: {why}")

    def _trim(self) -> None:
        files = sorted(self._files(), key=lambda file: file.used)
        excess = sum(file.size for file in files) - self._limit_bytes
        for file in files:
            if excess <= 0:
                break
            file.path.unlink(missing_ok=True)
            excess -= file.size

    def _files(self) -> Iterator[_File]:
        """List the blobs; on the way, remove what killed builds left half written."""
        for path in self._folder.glob("[0-9a-f][0-9a-f]/*"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another build removed it
                continue
            if not stat.S_ISREG(status.st_mode):
                continue
            if not path.name.startswith(UNFINISHED):
                yield _File(path, status.st_size, status.st_mtime)
            elif status.st_mtime < time.time() - _ABANDONED_SECONDS:
                path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    size: int
    used: float


def read_bounded(path: Path) -> bytes | None:
    """Return a file's bytes, those of an entry at most and one more; None if there is no file. OSError otherwise."""
    try:
        with path.open("rb") as file:
            size = min(os.fstat(file.fileno()).st_size, MAX_ENTRY_BYTES)
            return file.read(size + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
