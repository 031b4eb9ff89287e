"""Keeps every finished object by its inputs, so that nothing is compiled twice.

The store is in the plan's build folder, so the key need not hold what the plan pins (upstream's headers, the compilers'
versions). An object is used only with a record, written after it, of its size and hash. So objects are whole, whenever
a build was killed.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attnforge.compile.graph.commands import redirected
from attnforge.files import file_sha256, replacing, text_sha256, to_disk, write_whole
from attnforge.model.base import digest_of
from attnforge.model.graph import GeneratedFile, Unit

SCHEMA = 2

# What compilers read of the environment besides PATH, which only finds the program (the key holds what it finds).
# GCC: "Environment Variables Affecting GCC"; nvcc: "NVCC Environment Variables" in its manual.
READ_BY_COMPILERS = re.compile(
    r"NVCC_(?:APPEND|PREPEND)_FLAGS|NVCC_CCBIN|CPATH|(?:C|CPLUS|OBJC)_INCLUDE_PATH|COMPILER_PATH|GCC_EXEC_PREFIX"
    r"|LIBRARY_PATH|SOURCE_DATE_EPOCH|CUDA_HOME|CUDA_PATH|CICC_PATH|NVVM_PATH|CCC_OVERRIDE_OPTIONS"
)


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a stored object: ``size`` in bytes, wall and CPU ``seconds``, ``peak_bytes`` of memory.

    ``reads`` names the folders that its compile read files of (``reuse.reads``), None if that is not known.
    """

    key: str
    size: int
    sha256: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    argv: tuple[str, ...]
    reads: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """An object in the store, checked against its record."""

    path: Path
    record: Record


@dataclass(frozen=True, slots=True)
class Cost:
    """What making an object took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


class ObjectStore:
    """The objects of a plan's build folder."""

    def __init__(self, folder: Path) -> None:
        """Use ``folder``, which is made where it is missing."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def find(self, key: str) -> Stored | None:
        """Return the object of that key; None if there is none or it is not whole."""
        path = self._path(key)
        try:
            record = _read_record(self._record_path(key))
            whole = record.key == key and path.stat().st_size == record.size > 0 and file_sha256(path) == record.sha256
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return Stored(path, record) if whole else None

    def keep(
        self, key: str, made: Path, argv: Sequence[str], cost: Cost, reads: Collection[str] | None = None
    ) -> Stored:
        """Take an object that was made (on the same filesystem) into the store."""
        record = Record(
            key=key,
            size=made.stat().st_size,
            sha256=file_sha256(made),
            argv=tuple(argv),
            seconds=round(cost.seconds, 3),
            cpu_seconds=round(cost.cpu_seconds, 3),
            peak_bytes=cost.peak_bytes,
            reads=None if reads is None else tuple(sorted(reads)),
        )
        path = self._path(key)
        to_disk(made)
        made.replace(path)
        write_whole(self._record_path(key), json.dumps({"schema": SCHEMA, **asdict(record)}))
        return Stored(path, record)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.o"

    def _record_path(self, key: str) -> Path:
        return self.folder / f"{key}.json"


def stored_sources(folder: Path) -> frozenset[str]:
    """Return the file names that the commands of the objects in a store's folder name: of sources, above all."""
    found: set[str] = set()
    for path in folder.glob("*.json"):
        try:
            record = _read_record(path)
        except (OSError, ValueError, TypeError, KeyError):
            continue
        found.update(word.rpartition("/")[2] for word in record.argv if not word.startswith("-"))
    return frozenset(found)


def unit_key(unit: Unit, files: Iterable[GeneratedFile], program: str, environment: Mapping[str, str]) -> str:
    """Return the key of a unit's object: hex SHA-256 of all that may change its bytes within a plan.

    ``files`` are the generated files that the unit may read, ``program`` the path of its compiler. OSError if a
    source can't be read.
    """
    described = {
        "schema": SCHEMA,
        "argv": redirected(unit, "<output>", "<depfile>") or unit.argv,
        "program": program,
        "cwd": unit.cwd,
        "empty": unit.empty,
        "sources": [file_sha256(source) for source in unit.sources],
        "files": [(file.path, text_sha256(file.text)) for file in files],
        "environment": sorted(item for item in environment.items() if READ_BY_COMPILERS.fullmatch(item[0])),
    }
    return digest_of(described)


def place(stored: Path, output: Path) -> None:
    """Put an object where the link step expects it: at once, or not at all."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output, lasting=False) as made:
        try:
            made.hardlink_to(stored)
        except OSError:
            # Another filesystem, or one without links, or too many of them.
            shutil.copyfile(stored, made)


def is_filled(path: Path) -> bool:
    """Say whether a file is there and not empty."""
    return path.is_file() and path.stat().st_size > 0


def _read_record(path: Path) -> Record:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if document.pop("schema") != SCHEMA:
        raise ValueError("another schema")
    reads = document.get("reads")
    return Record(**{**document, "argv": tuple(document["argv"]), "reads": None if reads is None else tuple(reads)})


def write_generated(file: GeneratedFile) -> None:
    """Write a generated file where it is not there already with that text."""
    path, data = Path(file.path), file.text.encode("utf-8", "surrogateescape")
    with suppress(OSError):
        if path.read_bytes() == data:
            return
    write_whole(path, data)
