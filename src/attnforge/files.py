"""Files and folders: replaced whole or not at all, named by their SHA-256, and what a disk refuses."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attnforge.errors import HostError

UNFINISHED = ".new-"
"""How the name of a file begins that is being written. A killed process leaves such files."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED = _FULL | {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR}
_CACHE_HINT = "set ATTNFORGE_CACHE to a folder that this user can write, on a disk with space"


# --- replaced whole or not at all


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """Yield a new name for a file in ``folder``; a file that has it at the end is removed."""
    path = folder / f"{UNFINISHED}{secrets.token_hex(8)}"  # short: the final name may have all 255 bytes
    try:
        yield path
    finally:
        with suppress(OSError):
            path.unlink()


@contextmanager
def replacing(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """Yield a name beside ``path`` for a file that replaces ``path`` at the end.

    A reader sees the old file or the whole new one, also on a network file system. After an exception the old one
    stays. So it is after a loss of power, if the file is ``lasting``: not one that the next build writes anyway.
    """
    with unfinished(path.parent) as made:
        yield made
        if lasting:
            to_disk(made)
        made.replace(path)
        if lasting:
            with suppress(OSError):  # Not every file system can do that for a folder.
                to_disk(path.parent)


def to_disk(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk. OSError where they can't be."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file, UTF-8 for a text, so that a reader sees all of it or none. Its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as made:
        made.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` that replaces ``path`` at the end; after an exception ``path`` stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.parent / f"{UNFINISHED}{secrets.token_hex(8)}"
    made.mkdir()
    try:
        yield made
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        made.replace(path)
    finally:
        shutil.rmtree(made, ignore_errors=True)


# --- digests

_known: dict[str, tuple[tuple[int, int, int], str]] = {}


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the hex SHA-256 of a file's bytes. OSError."""
    with open(path, "rb") as file:  # noqa: PTH123 - thousands of headers
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_sha256(path: str) -> str:
    """Return the hex SHA-256 of a file's bytes. The file is read again only if it changed. OSError."""
    found = os.stat(path)  # noqa: PTH116 - thousands of headers
    state = (found.st_ino, found.st_size, found.st_mtime_ns)
    known = _known.get(path)
    if known is None or known[0] != state:
        known = _known[path] = (state, file_sha256(path))
    return known[1]


def text_sha256(text: str) -> str:
    """Return the hex SHA-256 of a text that may hold file names, which need not be UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


# --- what a disk refuses


def is_full(error: OSError) -> bool:
    """Say whether a disk, or a user's share of it, is full."""
    return error.errno in _FULL


def existing(path: Path) -> Path:
    """Return a path, or the nearest folder above it that exists. A link to nothing counts, too: it is in the way."""
    absolute = path.absolute()
    return next(one for one in (absolute, *absolute.parents) if one.exists() or one.is_symlink())


def free_bytes(folder: Path) -> int:
    """Return the bytes that are free where a folder is, or will be. OSError."""
    return shutil.disk_usage(existing(folder)).free


@contextmanager
def disk_errors(folder: Path, hint: str = _CACHE_HINT) -> Iterator[None]:
    """Turn a full, read-only or broken disk, or a file in the way, into a HostError. Other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        what = f"{_place_of(error) or folder} can't be written or read: {error.strerror or error}"
        raise HostError(what, hint=hint) from error


def _place_of(error: OSError) -> Path | None:
    """Return what could not be written. A copy names what it reads, and then what it writes."""
    name = error.filename2 or error.filename
    if not isinstance(name, (str, bytes, os.PathLike)):
        return None  # A descriptor, or nothing.
    path = Path(os.fsdecode(name))
    return path.parent if path.name.startswith(UNFINISHED) else path
