"""Writes a wheel whose bytes follow from its members only: sorted, one date, two permissions, one compression."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from attnforge.files import replacing
from attnforge.wheelfile.record import record_of

# The first date that a zip file can hold. A wheel's own date says nothing: the plan inside it does.
_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a wheel."""

    data: bytes
    executable: bool = False


def read_members(path: Path) -> dict[str, Member]:
    """Return the files of a wheel by their names. zipfile checks each one's CRC."""
    with zipfile.ZipFile(path) as archive:
        return {
            info.filename: Member(archive.read(info), executable=bool(info.external_attr >> 16 & stat.S_IXUSR))
            for info in archive.infolist()
            if not info.is_dir()
        }


def write_wheel(path: Path, members: Mapping[str, Member], dist_info: str) -> None:
    """Write a wheel whole or not at all: to a temporary name beside ``path``, then renamed. RECORD is made here."""
    record_name = f"{dist_info}/RECORD"
    files = {name: member for name, member in members.items() if name != record_name}
    # dist-info comes last, as the format recommends, so that metadata can be read from the end of a partial download.
    ordered = sorted(files, key=lambda name: (name.startswith(dist_info + "/"), name))
    with replacing(path) as made, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in ordered:
            archive.writestr(_info(name, files[name].executable), files[name].data)
        archive.writestr(
            _info(record_name, executable=False),
            record_of({name: one.data for name, one in files.items()}, record_name),
        )


def _info(name: str, executable: bool) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _DATE)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3
    info.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
    return info
