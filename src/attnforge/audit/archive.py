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

from attnforge.embedded import no_wheel
from attnforge.errors import HostError, WheelError
from attnforge.files import disk_errors

_CHUNK = 1 << 20
_LONGEST_TEXT = 1 << 26  # a RECORD of this size would name half a million files
_UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError)
_HINT = "download or build the wheel again; `python -m zipfile -t WHEEL` tests it alone"


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
            if self.zip.getinfo(member).file_size > _LONGEST_TEXT:
                raise ValueError(f"it has more than {_LONGEST_TEXT} bytes")
            return self.zip.read(member).decode("utf-8", errors="replace")

    def digest(self, member: str, algorithm: str, copy: Path | None = None) -> bytes:
        """Return the hash of a file, whose own checksum is checked too; write it to ``copy`` on the way.

        Raises WheelError where the file is damaged, and HostError where there is no room for the copy.
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
        except _UNREADABLE as error:
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
    except (*_UNREADABLE, OSError) as error:
        raise WheelError(
            f"{path.name} is not a whole zip archive",
            why=f"{error}: it is truncated, or no wheel at all ({path.stat().st_size} bytes)",
            hint=_HINT,
        ) from error
    with archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        yield Archive(path, archive, tuple(Member(i.filename, i.file_size, i.external_attr >> 16) for i in infos))


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
