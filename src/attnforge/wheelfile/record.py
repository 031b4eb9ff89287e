"""RECORD: the hash and size of each file (PyPA's "Recording installed projects" and binary distribution format)."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass

_STRONG = frozenset({"sha256", "sha384", "sha512"})  # the specification allows nothing weaker than the first


@dataclass(frozen=True, slots=True)
class Row:
    """What RECORD says of a file: hash algorithm and digest, and size in bytes; empty where it says nothing."""

    algorithm: str = ""
    digest: str = ""
    size: str = ""

    @property
    def strong(self) -> bool:
        """Whether the hash is one that the specification allows."""
        return self.algorithm in _STRONG and self.algorithm in hashlib.algorithms_available


def parse_record(text: str) -> tuple[dict[str, Row], tuple[str, ...]]:
    """Return the rows by path, and the lines that are no rows or come twice."""
    rows: dict[str, Row] = {}
    bad = []
    try:
        lines = [line for line in csv.reader(text.splitlines()) if line]
    except csv.Error as error:
        return {}, (str(error),)
    for line in lines:
        if len(line) != 3 or line[0] in rows:
            bad.append(",".join(line))
            continue
        algorithm, _, digest = line[1].partition("=")
        rows[line[0]] = Row(algorithm, digest, line[2])
    return rows, tuple(bad)


def record_of(files: Mapping[str, bytes], name: str) -> bytes:
    """Return the text of RECORD for files by path; ``name`` is its own path."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for path, data in sorted(files.items()):
        writer.writerow((path, f"sha256={encode(hashlib.sha256(data).digest())}", len(data)))
    writer.writerow((name, "", ""))
    return text.getvalue().encode()


def encode(digest: bytes) -> str:
    """Return a digest as RECORD writes it: URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
