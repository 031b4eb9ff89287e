"""Unpacks source archives that are not trusted. One set of rules holds for tar and zip.

tarfile's data filter is not enough. It strips the slash of an absolute path, writes through links, and does not know
zip. Before Python 3.11.13 a chain of long links leads it out of the folder (CVE-2025-4517; tried with 3.11.7).
"""

from __future__ import annotations

import calendar
import errno
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, Self

from attnforge.errors import RequestError
from attnforge.files import disk_errors, replacing_folder

MAX_BYTES = 20 * 10**9
MAX_MEMBERS = 200_000
_MAX_LINK = 4096  # PATH_MAX on Linux
_MAX_HEADER = 1 << 20  # of a long name or of pax records: tarfile reads them whole into memory
_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_OLDEST = calendar.timegm((1980, 1, 2, 0, 0, 0))  # zip archives, so wheels, can't say an earlier time
_NEWEST = calendar.timegm((2100, 1, 1, 0, 0, 0))
_BAD_NAMES = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EILSEQ}
# What the readers raise for a damaged header.
_DAMAGED = (EOFError, zlib.error, LZMAError, NotImplementedError, struct.error, LookupError, OverflowError, TypeError)
_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
SUFFIXES = (*_TAR, ".zip")


class _Kind(Enum):
    FILE = "file"
    FOLDER = "folder"
    LINK = "symbolic link"
    HARD_LINK = "hard link"
    DEVICE = "device or pipe"


@dataclass(frozen=True, slots=True)
class _Member:
    """One entry of an archive: ``size`` in bytes, ``modified`` in seconds since 1970, ``target`` of a link."""

    name: str
    kind: _Kind
    size: int
    executable: bool
    modified: float
    open: Callable[[], IO[bytes]]
    target: str = ""


def unpack(archive: Path, into: Path) -> Path:
    """Unpack a source archive (.tar.gz, .tar.bz2, .tar.xz, .tar or .zip) and return its single top folder.

    ``into`` is replaced when everything is unpacked. Without a single top folder ``into`` itself is returned. A file
    keeps its executable bit and its time, and no other bit of its mode. RequestError for an archive that is damaged, of
    another kind, larger than MAX_BYTES or MAX_MEMBERS, or that has absolute paths, paths or links that leave the
    folder, devices or pipes. HostError where the disk is full.
    """
    with disk_errors(into.parent), replacing_folder(into) as made, _damage(archive):
        _extract(archive, made)
    top = list(into.iterdir())
    return top[0] if len(top) == 1 and top[0].is_dir() and not top[0].is_symlink() else into


def read_files(archive: Path, names: Collection[str], limit: int = 10**6) -> dict[str, str]:
    """Return the text of the named files in the archive's top folder, up to ``limit`` bytes each.

    RequestError for an archive that is damaged or of another kind.
    """
    found: dict[str, str] = {}
    with _damage(archive), _members(archive) as members:
        for member in members:
            path = PurePosixPath(member.name)
            if member.kind is _Kind.FILE and len(path.parts) <= 2 and path.name in names:
                found.setdefault(path.name, member.open().read(limit).decode("utf-8", "replace"))
            if len(found) == len(names):
                break
    return found


def member_names(archive: Path) -> tuple[str, ...]:
    """Return the paths of an archive's files; RequestError for one that is damaged or of another kind."""
    with _damage(archive), _members(archive) as members:
        return tuple(member.name for member in members if member.kind is _Kind.FILE)


def _refused(archive: str, why: str) -> RequestError:
    return RequestError(
        f"{archive} is refused",
        why=why,
        hint="get the archive from upstream again, or unpack it yourself and build from the folder",
    )


@contextmanager
def _damage(archive: Path) -> Iterator[None]:
    """Turn each error of the readers about a broken archive into a RequestError. Errors of the disk pass."""
    try:
        yield
    except RequestError as error:
        raise RequestError(f"{archive.name}: {error.what}", why=error.why, hint=error.hint) from error
    except (tarfile.TarError, zipfile.BadZipFile, zipfile.LargeZipFile, *_DAMAGED) as error:
        raise _refused(archive.name, f"it is truncated or damaged: {error}") from error
    except (ValueError, UnicodeError, RuntimeError) as error:
        raise _refused(archive.name, f"it can't be read: {error}") from error
    except OSError as error:
        if error.filename == str(archive):
            raise RequestError(f"{archive} can't be read", why=str(error), hint="check the path") from error
        if error.errno is not None and error.errno not in _BAD_NAMES:
            raise
        raise _refused(archive.name, f"it is damaged, or its names can't be files together: {error}") from error


# extraction


def _extract(archive: Path, stage: Path) -> None:
    links: set[PurePosixPath] = set()
    total = 0
    with _members(archive) as members:
        for count, member in enumerate(members, start=1):
            total += member.size
            if total > MAX_BYTES or count > MAX_MEMBERS:
                raise _refused("it", f"it holds more than {MAX_BYTES:,} bytes or {MAX_MEMBERS:,} members")
            path = _checked(member.name, links)
            if path.parts:
                _write(member, path, stage, links)
    if next(stage.iterdir(), None) is None:
        raise _refused("it", "it is empty")


def _checked(name: str, links: set[PurePosixPath]) -> PurePosixPath:
    """Return a member's path, which stays in the folder and goes through no link; RequestError for any other."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise _refused("it", f"its member {name!r} leaves the folder that it is unpacked into")
    if any(parent in links for parent in path.parents):
        raise _refused("it", f"its member {name!r} goes through a symbolic link")
    return path


def _write(member: _Member, path: PurePosixPath, stage: Path, links: set[PurePosixPath]) -> None:
    place = stage / path
    if member.kind is _Kind.DEVICE:
        raise _refused("it", f"its member {member.name!r} is neither file, folder nor link")
    if member.kind is _Kind.FOLDER:
        if path in links:
            raise _refused("it", f"its member {member.name!r} is a folder and a link")
        place.mkdir(parents=True, exist_ok=True)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    _make_room(place, member.name)
    links.discard(path)
    if member.kind is _Kind.LINK:
        place.symlink_to(_checked_target(member, path))
        links.add(path)
    elif member.kind is _Kind.HARD_LINK:
        _hard_link(member, place, stage, links)
    else:
        _write_file(member, place)


def _make_room(place: Path, name: str) -> None:
    """Let a later member of the same name replace an earlier one, as tar does."""
    if place.is_dir() and not place.is_symlink():
        raise _refused("it", f"its member {name!r} is a folder and a file")
    place.unlink(missing_ok=True)


def _checked_target(member: _Member, path: PurePosixPath) -> str:
    """Return a link's target; it may climb at its start only, and not above the top.

    A ``..`` further on starts where another link leads, which the text does not show.
    """
    target = PurePosixPath(member.target)
    climbs = 0
    while climbs < len(target.parts) and target.parts[climbs] == "..":
        climbs += 1
    depth = len(path.parts) - 1
    if not member.target or target.is_absolute() or climbs > depth or ".." in target.parts[climbs:]:
        raise _refused("it", f"its link {member.name!r} leads to {member.target!r}, out of the folder")
    return member.target


def _hard_link(member: _Member, place: Path, stage: Path, links: set[PurePosixPath]) -> None:
    source = stage / _checked(member.target, links)
    if source.is_symlink() or not source.is_file():
        raise _refused("it", f"its hard link {member.name!r} leads to {member.target!r}, which is no file in it")
    os.link(source, place)


def _write_file(member: _Member, place: Path) -> None:
    with member.open() as source, place.open("xb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
        if sink.tell() != member.size:
            raise EOFError(f"{member.name} has {sink.tell():,} of {member.size:,} bytes")
    place.chmod(0o755 if member.executable else 0o644)
    modified = min(max(member.modified, _OLDEST), _NEWEST)
    os.utime(place, (modified, modified))


# readers


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[_Member]]:
    name = archive.name.lower()
    if name.endswith(".zip"):
        with zipfile.ZipFile(archive) as bundle:
            yield (_zip_member(bundle, info) for info in bundle.infolist())
    elif name.endswith(_TAR):
        with tarfile.open(archive, "r:*", tarinfo=_Header) as bundle:
            yield _tar_members(bundle)
    else:
        raise RequestError("not a source archive", hint=f"its name has to end in one of {', '.join(SUFFIXES)}")


class _Header(tarfile.TarInfo):
    """A header of a tar archive; RequestError for one whose text is longer than any name or record."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Read a header of 512 bytes."""
        found = super().frombuf(buf, encoding, errors)
        if found.type in _HEADERS and found.size > _MAX_HEADER:
            raise _refused("it", f"a header of it has {found.size:,} bytes")
        return found


def _tar_members(bundle: tarfile.TarFile) -> Iterator[_Member]:
    for info in bundle:
        yield _tar_member(bundle, info)
    _check_end(bundle)


def _check_end(bundle: tarfile.TarFile) -> None:
    """tarfile takes a broken header for the end of the archive; the real end is a block of zeros."""
    stream = bundle.fileobj
    assert stream is not None
    stream.seek(bundle.offset)
    if stream.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise EOFError("its end is missing")


def _tar_member(bundle: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    kinds = {
        _Kind.FILE: info.isreg(),
        _Kind.FOLDER: info.isdir(),
        _Kind.LINK: info.issym(),
        _Kind.HARD_LINK: info.islnk(),
    }
    kind = next((kind for kind, is_it in kinds.items() if is_it), _Kind.DEVICE)

    def content() -> IO[bytes]:
        stream = bundle.extractfile(info)
        assert stream is not None
        return stream

    size = info.size if kind is _Kind.FILE else 0
    return _Member(info.name, kind, size, bool(info.mode & 0o100), info.mtime, content, info.linkname)


def _zip_member(bundle: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    mode = info.external_attr >> 16
    kind = _zip_kind(info, stat.S_IFMT(mode))
    target = ""
    if kind is _Kind.LINK:
        with bundle.open(info) as stream:
            target = os.fsdecode(stream.read(_MAX_LINK))
    size = info.file_size if kind is _Kind.FILE else 0
    year, month, day, *clock = info.date_time
    modified = calendar.timegm((year, max(month, 1), max(day, 1), *clock))  # zip writes an unknown date as zeros
    return _Member(info.filename, kind, size, bool(mode & 0o100), modified, lambda: bundle.open(info), target)


def _zip_kind(info: zipfile.ZipInfo, form: int) -> _Kind:
    if info.is_dir():
        return _Kind.FOLDER
    return {0: _Kind.FILE, stat.S_IFREG: _Kind.FILE, stat.S_IFLNK: _Kind.LINK, stat.S_IFDIR: _Kind.FOLDER}.get(
        form, _Kind.DEVICE
    )
