"""Files that two wheels own, or a wheel and what is installed already: the last that is installed overwrites them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packaging.utils import canonicalize_name

from attnforge.audit.record import listed
from attnforge.model.finding import Finding, Severity
from attnforge.wheelfile.archive import UNREADABLE, document_in
from attnforge.wheelfile.name import WheelName
from attnforge.wheelfile.record import Row, parse_record

_LINK = "https://github.com/Dao-AILab/flash-attention/issues/2310"
_IN_SITE = ("purelib", "platlib")


@dataclass(frozen=True, slots=True)
class Owner:
    """What owns files: a wheel, or a distribution that is installed.

    ``name`` is for people, ``project`` its canonical name. ``files`` maps paths below site-packages, and ``bin/NAME``
    for programs, to their hashes as RECORD has them, "" where it has none.
    """

    name: str
    project: str
    files: Mapping[str, str]


def owner_of_wheel(path: Path) -> Owner | None:
    """Return what a wheel would own once installed, None where it is no whole wheel: its own audit says so."""
    name = WheelName.parse(path.name)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info.filename for info in archive.infolist() if not info.is_dir()]
            rows, _ = parse_record((document_in(archive, "RECORD") or b"").decode(errors="replace"))
    except UNREADABLE:
        return None
    places = ((_installed(member), rows.get(member, Row())) for member in members)
    return Owner(path.name, name.project, {place: _hash(row) for place, row in places if place}) if name else None


def owners_in(site: Path) -> tuple[Owner, ...]:
    """Return what is installed in a site-packages folder, by RECORD; a distribution without one is passed over."""
    found = (_owner_of_record(record, site) for record in sorted(site.glob("*.dist-info/RECORD")))
    return tuple(owner for owner in found if owner is not None)


def _owner_of_record(record: Path, site: Path) -> Owner | None:
    try:
        rows, _ = parse_record(record.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    name, _, version = record.parent.name.removesuffix(".dist-info").partition("-")
    places = ((_recorded(path), row) for path, row in rows.items())
    files = {place: _hash(row) for place, row in places if place}
    return Owner(f"{name} {version} in {site}", canonicalize_name(name), files)


def _installed(member: str) -> str:
    """Return where a member of a wheel goes; "" for its own metadata, and for what goes elsewhere."""
    top, _, rest = member.partition("/")
    if top.endswith(".dist-info"):
        return ""
    if not top.endswith(".data"):
        return member
    scheme, _, inside = rest.partition("/")
    return inside if scheme in _IN_SITE else f"bin/{inside}" if scheme == "scripts" else ""


def _recorded(path: str) -> str:
    """Return the same of a path in the RECORD of what is installed, which is relative to site-packages."""
    parts = PurePosixPath(path).parts
    if "__pycache__" in parts or (parts and parts[0].endswith(".dist-info")):
        return ""
    if parts and parts[0] == "..":
        return f"bin/{parts[-1]}" if parts[-2:-1] == ("bin",) else ""
    return path


def _hash(row: Row) -> str:
    return f"{row.algorithm}={row.digest}" if row.digest else ""


def check_owners(owner: Owner, others: Iterable[Owner]) -> Iterator[Finding]:
    """Say which files of a wheel others own too: those of another project, since one of its own is replaced whole."""
    for other in others:
        shared = sorted(owner.files.keys() & other.files.keys()) if other.project != owner.project else []
        same = [path for path in shared if owner.files[path] and owner.files[path] == other.files[path]]
        different = [path for path in shared if path not in same]
        if different:
            yield _shared(
                Severity.WARNING,
                different,
                f"in {other.name} too, with another content",
                "the one that is installed last overwrites them, and the other may not work any more",
            )
        elif same:
            yield _shared(
                Severity.INFO,
                same,
                f"in {other.name} too, byte for byte",
                "whoever uninstalls one of them takes these files from the other",
            )


def _shared(severity: Severity, paths: list[str], seen: str, means: str) -> Finding:
    return Finding(
        code="shared-files",
        severity=severity,
        subject=listed(paths),
        seen=seen,
        means=means,
        hint="install them into separate environments, or last the one whose files are needed: pip install "
        "--force-reinstall --no-deps WHEEL",
        link=_LINK,
    )
