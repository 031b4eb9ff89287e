"""Compares a wheel's files with its RECORD."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from attnforge.model.finding import Finding, Severity
from attnforge.wheelfile.record import Row

LINK = "https://packaging.python.org/en/latest/specifications/binary-distribution-format/"

_UNRECORDED = ("RECORD", "RECORD.jws", "RECORD.p7s")  # the specification leaves these out
_SHOWN = 5


def check_record(
    rows: Mapping[str, Row], bad: Iterable[str], files: Mapping[str, tuple[int, str]], dist_info: str
) -> tuple[Finding, ...]:
    """Compare RECORD with the files: path -> (size in bytes, digest by the row's own algorithm, encoded)."""
    exempt = {f"{dist_info}/{name}" for name in _UNRECORDED}
    recorded = {path: row for path, row in rows.items() if path not in exempt}
    there = {path: value for path, value in files.items() if path not in exempt}
    both = [path for path in recorded if path in there]
    weak = [path for path in both if not recorded[path].strong]
    wrong = [path for path in both if recorded[path].strong and not _agrees(recorded[path], *there[path])]
    problems = (
        ("record-malformed", list(bad), "RECORD has lines that are no rows, or rows that come twice"),
        (
            "record-missing-file",
            [path for path in recorded if path not in there],
            "RECORD names files that are not there",
        ),
        ("record-unlisted-file", [path for path in there if path not in recorded], "files are not in RECORD"),
        ("record-weak-hash", weak, "RECORD has no hash of these files, or a weaker one than SHA-256"),
        ("record-hash", wrong, "files differ from their hash or size in RECORD"),
    )
    findings = tuple(_problem(code, paths, means) for code, paths, means in problems if paths)
    return findings or (_good(len(both)),)


def duplicates(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the paths that an archive has more than once: installers disagree on which one counts."""
    return tuple(path for path, count in Counter(paths).items() if count > 1)


def listed(names: Iterable[str]) -> str:
    """Return the first names, and how many more there are."""
    names = list(names)
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _agrees(row: Row, size: int, digest: str) -> bool:
    return row.digest.rstrip("=") == digest and row.size in ("", str(size))


def _problem(code: str, paths: list[str], means: str) -> Finding:
    return Finding(
        code=code,
        severity=Severity.ERROR,
        subject="RECORD",
        seen=listed(paths),
        means=f"{means}: the wheel was changed after it was made, or badly packed",
        hint="build the wheel again, or pack it with `python -m wheel pack`, which writes RECORD again",
        link=LINK,
    )


def _good(count: int) -> Finding:
    return Finding(code="record", severity=Severity.OK, subject="RECORD", seen=f"{count} files, each hash right")
