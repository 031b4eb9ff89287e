"""Reads the files of a wheel, once each, and checks what does not need a look into its modules."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnforge.audit.archive import Archive, unsafe
from attnforge.audit.metadata import SHARED_OBJECT, WheelName, check_metadata, check_name, check_tags
from attnforge.audit.record import LINK, Row, check_record, duplicates, encode, listed, parse_record
from attnforge.errors import WheelError
from attnforge.model.finding import Finding, Severity

_REQUIRED = ("METADATA", "WHEEL", "RECORD")
_NO_ROW = Row("sha256", "", "")


@dataclass(frozen=True, slots=True)
class Contents:
    """What lies in a wheel.

    ``dist_info`` is the folder's name, empty unless there is exactly one. ``files`` maps paths to size in bytes and
    digest, by the algorithm that RECORD has for the file. ``modules`` maps the paths of shared objects to unpacked
    copies, and ``coverage`` is attnforge's own account of what was built, where there is one.
    """

    dist_info: str
    rows: Mapping[str, Row]
    bad_rows: tuple[str, ...]
    files: Mapping[str, tuple[int, str]]
    modules: Mapping[str, Path]
    coverage: str


def read_contents(archive: Archive, folder: Path) -> Contents:
    """Read every member: its hash, and into ``folder`` a copy of each shared object, by number and not by its name."""
    dist_info = _dist_info(archive)
    paths = {member.path for member in archive.members}
    record = f"{dist_info}/RECORD"
    rows, bad = parse_record(archive.text(record)) if record in paths else ({}, ())
    files, modules = {}, {}
    for number, member in enumerate(archive.members):
        row = rows.get(member.path, _NO_ROW)
        copy = folder / f"{number}.so" if SHARED_OBJECT.search(member.path) else None
        digest = archive.digest(member.path, row.algorithm if row.strong else "sha256", copy)
        files[member.path] = (member.size, encode(digest))
        if copy is not None:
            modules[member.path] = copy
    return Contents(dist_info, rows, bad, files, modules, _coverage_path(paths, dist_info))


def check_contents(archive: Archive, contents: Contents, name: WheelName | None) -> Iterator[Finding]:
    """Say what is wrong with the archive, its name and its metadata."""
    yield from check_name(archive.path.name, name)
    yield from _check_archive(archive)
    folder = contents.dist_info
    missing = [file for file in _REQUIRED if f"{folder}/{file}" not in contents.files]
    if missing:
        seen = f"no {', '.join(missing)}" if folder else "not exactly one .dist-info folder"
        yield _bad("dist-info", folder or archive.path.name, seen, "it is no wheel, or a broken one")
        return
    yield from check_record(contents.rows, contents.bad_rows, contents.files, folder)
    yield from _check_data(contents.files, folder)
    if name is not None:
        yield from check_metadata(name, folder, archive.text(f"{folder}/METADATA"))
        yield from check_tags(name, archive.text(f"{folder}/WHEEL"), compiled=bool(contents.modules))


def read_metadata(archive: Archive, contents: Contents) -> str:
    """Return the text of METADATA, "" where there is none."""
    path = f"{contents.dist_info}/METADATA"
    return archive.text(path) if path in contents.files else ""


def read_coverage(archive: Archive, contents: Contents) -> dict[str, Any] | None:
    """Return what attnforge says in its own wheel of what was built and left out; WheelError where it is unreadable."""
    if not contents.coverage:
        return None
    try:
        value = json.loads(archive.text(contents.coverage))
    except (ValueError, RecursionError) as error:
        raise _unreadable(contents.coverage, str(error)) from error
    if not isinstance(value, dict):
        raise _unreadable(contents.coverage, "it is no JSON object")
    return value


def _check_archive(archive: Archive) -> Iterator[Finding]:
    for member in archive.members:
        why = unsafe(member)
        if why:
            yield _bad("unsafe-path", member.path, why, "an installer that trusts it writes where it must not")
    twice = duplicates(member.path for member in archive.members)
    if twice:
        yield _bad("duplicate-files", listed(twice), "in the archive twice", "installers disagree on which one counts")


def _check_data(paths: Iterable[str], dist_info: str) -> Iterator[Finding]:
    """Say that a data folder has another name than dist-info: installers leave its scripts and headers out."""
    wanted = f"{dist_info.removesuffix('.dist-info')}.data"
    folders = sorted({folder for path in paths for folder, slash, _ in [path.partition("/")] if slash})
    for folder in folders:
        if folder.endswith(".data") and folder != wanted and "-" in folder:
            means = f"installers look for scripts and headers in {wanted}, and put this folder into site-packages"
            yield _bad("data-name", folder, folder, means)


def _dist_info(archive: Archive) -> str:
    folders = {member.path.split("/")[0] for member in archive.members if "/" in member.path}
    found = [folder for folder in folders if folder.endswith(".dist-info")]
    return found[0] if len(found) == 1 else ""


def _coverage_path(paths: set[str], dist_info: str) -> str:
    inside = (path for path in sorted(paths) if path.startswith(f"{dist_info}/") and path.endswith("/coverage.json"))
    return next(inside, "") if dist_info else ""


def _unreadable(path: str, why: str) -> WheelError:
    return WheelError(f"{path} can't be read", why=why, hint="build the wheel again")


def _bad(code: str, subject: str, seen: str, means: str) -> Finding:
    hint = "build or download the wheel again"
    return Finding(code=code, severity=Severity.ERROR, subject=subject, seen=seen, means=means, hint=hint, link=LINK)
