"""Reads the archive that a wheel is: every member once, with its checksum, and nothing outside of a folder of ours."""

from __future__ import annotations

import hashlib
import lzma
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from attnforge.errors import HostError, RequestError, WheelError
from attnforge.files import disk_errors
from attnforge.wheelfile.name import is_in_dist_info

_CHUNK = 1 << 20
_LONGEST_TEXT = 1 << 26  # a RECORD of this size would name half a million files
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)
UNREADABLE = (OSError, *_DAMAGED)
"""What ``document`` raises for a file that is missing, is no whole wheel, or has a text that is too long."""

_HINT = "download or build the wheel again; `python -m zipfile -t WHEEL` tests it"


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the archive; ``size`` unpacked, in bytes. ``mode`` is that of Unix, 0 where none is recorded."""

    path: str
    size: int
    mode: int


@dataclass(frozen=True, slots=True)
class Archive:
    """An open wheel."""

    path: Path
    zip: zipfile.ZipFile
    members: tuple[Member, ...]

    def text(self, member: str) -> str:
        """Return a small file's text; WheelError where it is damaged or too large for one."""
        with self._reading(member):
            return _text(self.zip, self.zip.getinfo(member)).decode("utf-8", errors="replace")

    def digest(self, member: str, algorithm: str, copy: Path | None = None) -> bytes:
        """Return the hash of a file, whose own checksum is checked too; write it to ``copy`` on the way.

        Raises WheelError where the file is damaged, and HostError where the disk has no space for the copy.
        """
        digest = hashlib.new(algorithm)
        with self._reading(member), self.zip.open(member) as source, _writing(copy) as write:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                write(chunk)
        return digest.digest()

    @contextmanager
    def _reading(self, member: str) -> Iterator[None]:
        try:
            yield
        except _DAMAGED as error:
            raise WheelError(f"{self.path.name}: {member} can't be read", why=str(error), hint=_HINT) from error


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a wheel. RequestError where there is no such file, WheelError where it is no whole archive."""
    if not path.is_file():
        raise no_wheel(path)
    try:
        archive = zipfile.ZipFile(path)
    except PermissionError as error:
        raise HostError(f"{path} can't be read", why=str(error), hint=f"chmod u+r {path}") from error
    except UNREADABLE as error:
        raise WheelError(
            f"{path.name} is not a whole zip archive",
            why=f"{error}: it is truncated, or no wheel at all ({path.stat().st_size} bytes)",
            hint=_HINT,
        ) from error
    with archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        yield Archive(path, archive, tuple(Member(i.filename, i.file_size, i.external_attr >> 16) for i in infos))


def no_wheel(path: Path) -> RequestError:
    """Return the error for a path that is no file, and so no wheel."""
    if path.is_dir():
        what = f"{path} is a folder"
    else:
        what = f"{path} is no ordinary file" if path.exists() else f"there is no file {path}"
    return RequestError(what, hint="name a wheel: dist/NAME.whl")


def document(wheel: Path | IO[bytes], place: str) -> bytes | None:
    """Return a file of a wheel's dist-info folder by its path there (``METADATA``), None for none. UNREADABLE."""
    with zipfile.ZipFile(wheel) as archive:
        return document_in(archive, place)


def document_in(archive: zipfile.ZipFile, place: str) -> bytes | None:
    """Return the same of a wheel that is open."""
    found = next((info for info in archive.infolist() if is_in_dist_info(info.filename, place)), None)
    return _text(archive, found) if found else None


def _text(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.file_size > _LONGEST_TEXT:
        raise ValueError(f"it has more than {_LONGEST_TEXT} bytes")
    return archive.read(info)


def unsafe(member: Member) -> str:
    """Say why a member must not be unpacked: a path that leaves the folder, a link, a device. Empty if it is safe."""
    path = PurePosixPath(member.path)
    if path.is_absolute() or ".." in path.parts or "\\" in member.path or member.path[1:2] == ":":
        return "leaves the folder that it is unpacked into"
    kind = stat.S_IFMT(member.mode)
    return "" if kind in (0, stat.S_IFREG) else "is a link or a device"


@contextmanager
def _writing(copy: Path | None) -> Iterator[Callable[[bytes], object]]:
    """Give a function that writes to the copy, or one that does nothing."""
    if copy is None:
        yield lambda chunk: None
        return
    with disk_errors(copy.parent, "set TMPDIR to a folder on a disk with space"), copy.open("wb") as file:
        yield file.write
