"""Folders of source: their digest, and copies that upstream's build may write into.

What a build makes is no source and is neither hashed nor copied: ``.git``, ``__pycache__`` and ``*.egg-info`` wherever
they are, ``build`` and ``dist`` at the top. A copy has the digest of its original.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from attnforge.errors import RequestError
from attnforge.files import disk_errors, file_sha256, replacing_folder

_IGNORED = {".git", "__pycache__"}
_IGNORED_AT_TOP = {"build", "dist"}


def tree_sha256(folder: Path) -> str:
    """Return the hex SHA-256 of a folder's source: the same files, the same digest, on every machine.

    It covers, sorted by path, each file's relative path, executable bit and bytes, and each symbolic link's path and
    target as text. Empty folders, times, owners and other mode bits do not count. RequestError for a folder that
    holds a device, pipe or socket.
    """
    return _digest(folder, _entries(folder, folder))


def files_sha256(folder: Path) -> str:
    """Return the digest of all files of a folder, also of those that a build would make; see ``tree_sha256``."""
    return _digest(folder, (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()))


def _digest(folder: Path, paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for relative, path in sorted((os.fsencode(path.relative_to(folder)), path) for path in paths):
        digest.update(relative + b"\0" + _content(path) + b"\n")
    return digest.hexdigest()


def tree_names(folder: Path) -> tuple[str, ...]:
    """Return the relative paths of a folder's source, as ``tree_sha256`` covers them."""
    return tuple(path.relative_to(folder).as_posix() for path in _entries(folder, folder))


def _content(path: Path) -> bytes:
    if path.is_symlink():
        return b"link " + hashlib.sha256(os.fsencode(path.readlink())).hexdigest().encode()
    kind = b"program " if path.stat().st_mode & 0o100 else b"file "
    return kind + file_sha256(path).encode()


def _entries(folder: Path, top: Path) -> Iterator[Path]:
    """Yield the files and links of a folder's source."""
    for entry in folder.iterdir():
        if _is_made(entry.name, folder == top):
            continue
        if entry.is_symlink() or entry.is_file():
            yield entry
        elif entry.is_dir():
            yield from _entries(entry, top)
        else:
            raise RequestError(
                f"{entry} is neither file, folder nor link", why="a source can't hold it", hint=f"rm '{entry}'"
            )


def _is_made(name: str, at_top: bool) -> bool:
    return name in _IGNORED or name.endswith(".egg-info") or (at_top and name in _IGNORED_AT_TOP)


def copy_tree(folder: Path, into: Path) -> Path:
    """Copy a folder's source to ``into``, which is replaced whole, and return it. Links stay links.

    RequestError for a link that leaves the folder, since the copy's would lead elsewhere; HostError where the disk is
    full or read-only.
    """
    with disk_errors(into.parent), replacing_folder(into) as made:
        for path in _entries(folder, folder):
            _copy(path, made / path.relative_to(folder), folder)
    return into


def _copy(path: Path, place: Path, folder: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        _check_link(path, folder)
        place.symlink_to(path.readlink())
    else:
        shutil.copy2(path, place)
        place.chmod(place.stat().st_mode | 0o600)  # a build has to be able to write over a read-only source


def _check_link(path: Path, folder: Path) -> None:
    target = path.readlink()
    end = Path(os.path.realpath(path))
    if target.is_absolute() or not end.is_relative_to(Path(os.path.realpath(folder))):
        raise RequestError(
            f"the link {path} leads to {target}, out of the folder that is to be built",
            hint="put the file itself, or a relative link inside the folder, in its place",
        )
