"""Reads the files of a wheel, once each, and checks all but its modules."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnforge.audit.metadata import check_metadata, check_name, check_tags
from attnforge.audit.record import LINK, check_record, duplicates, listed
from attnforge.errors import WheelError
from attnforge.model.finding import Finding, Severity
from attnforge.wheelfile.archive import Archive, unsafe
from attnforge.wheelfile.embedded import COVERAGE, PLAN
from attnforge.wheelfile.name import SHARED_OBJECT, WheelName, data_folder, dist_info_in
from attnforge.wheelfile.record import Row, encode, parse_record

_REQUIRED = ("METADATA", "WHEEL", "RECORD")


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a wheel.

    ``archive`` stays open. ``dist_info`` is the folder's name, empty unless there is exactly one. ``files`` maps paths
    to size in bytes and digest, by the algorithm that RECORD has for the file. ``modules`` maps the paths of shared
    objects to unpacked copies.
    """

    archive: Archive
    dist_info: str
    rows: Mapping[str, Row]
    bad_rows: tuple[str, ...]
    files: Mapping[str, tuple[int, str]]
    modules: Mapping[str, Path]

    def text(self, place: str) -> str:
        """Return the text of a file in dist-info, "" where there is none; WheelError where it is damaged."""
        path = f"{self.dist_info}/{place}"
        return self.archive.text(path) if path in self.files else ""

    def plan(self) -> Any:
        """Return the plan that a wheel of ours was built by, as JSON has it; None where there is none to read."""
        try:
            return json.loads(self.text(PLAN))
        except (ValueError, RecursionError):
            return None

    def coverage(self) -> dict[str, Any] | None:
        """Return what attnforge says in its own wheel of what was built and left out; WheelError where it is
        unreadable.
        """
        if f"{self.dist_info}/{COVERAGE}" not in self.files:
            return None
        try:
            value = json.loads(self.text(COVERAGE))
        except (ValueError, RecursionError) as error:
            raise _unreadable(str(error)) from error
        if not isinstance(value, dict):
            raise _unreadable("it is no JSON object")
        return value


def read_contents(archive: Archive, folder: Path) -> Contents:
    """Read every member: its hash, and into ``folder`` a copy of each shared object, by number and not by its name."""
    paths = {member.path for member in archive.members}
    dist_info = dist_info_in(paths)
    record = f"{dist_info}/RECORD"
    rows, bad = parse_record(archive.text(record)) if record in paths else ({}, ())
    files, modules = {}, {}
    for number, member in enumerate(archive.members):
        row = rows.get(member.path, Row())
        copy = folder / f"{number}.so" if SHARED_OBJECT.search(member.path) else None
        digest = archive.digest(member.path, row.algorithm if row.strong else "sha256", copy)
        files[member.path] = (member.size, encode(digest))
        if copy is not None:
            modules[member.path] = copy
    return Contents(archive, dist_info, rows, bad, files, modules)


def check_contents(contents: Contents, name: WheelName | None) -> Iterator[Finding]:
    """Say what is wrong with the archive, its name and its metadata."""
    file_name = contents.archive.path.name
    yield from check_name(file_name, name)
    yield from _check_archive(contents.archive)
    folder = contents.dist_info
    missing = [file for file in _REQUIRED if f"{folder}/{file}" not in contents.files]
    if missing:
        seen = f"no {', '.join(missing)}" if folder else "not exactly one .dist-info folder"
        yield _bad("dist-info", folder or file_name, seen, "it is no wheel, or a broken one")
        return
    yield from check_record(contents.rows, contents.bad_rows, contents.files, folder)
    yield from _check_data(contents.files, folder)
    if name is not None:
        yield from check_metadata(name, folder, contents.text("METADATA"))
        yield from check_tags(name, contents.text("WHEEL"), compiled=bool(contents.modules))


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
    wanted = data_folder(dist_info)
    folders = sorted({folder for path in paths for folder, slash, _ in [path.partition("/")] if slash})
    for folder in folders:
        if folder.endswith(".data") and folder != wanted and "-" in folder:
            means = f"installers look for scripts and headers in {wanted}, and put this folder into site-packages"
            yield _bad("data-name", folder, folder, means)


def _unreadable(why: str) -> WheelError:
    return WheelError(f"{COVERAGE} can't be read", why=why, hint="build the wheel again")


def _bad(code: str, subject: str, seen: str, means: str) -> Finding:
    hint = "build or download the wheel again"
    return Finding(code=code, severity=Severity.ERROR, subject=subject, seen=seen, means=means, hint=hint, link=LINK)
