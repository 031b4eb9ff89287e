"""Finds whole objects by their inputs, without running a compiler.

The headers of a unit are known only after it was compiled. So a look-up has two steps. The first key is of all that
is known before (command, sources, compilers, the names of the files in the folders that are
searched). Under it is a manifest of the headers that were read then, with their contents. Where those on this
machine have the same contents, the object is the one that was made of them. Folders of this machine count by their
stable names, so that another virtual environment with the same headers finds the same objects.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from attnforge.compile.graph.commands import redirected
from attnforge.compile.graph.depfile import read_dependencies
from attnforge.compile.nvcc.prefixes import Prefixes
from attnforge.compile.reuse.listing import include_folders, listing_digest
from attnforge.compile.reuse.objects import READ_BY_COMPILERS, Cost
from attnforge.compile.reuse.reads import folders_of
from attnforge.compile.reuse.tools import Tools
from attnforge.files import known_sha256
from attnforge.model.base import digest_of
from attnforge.model.graph import GeneratedFile, Unit

SCHEMA = 1

MOST_VARIANTS = 8

# What is not known to be read: files of options and plugins. With debug information the folder is in the object.
_UNSEEN = re.compile(r"@.+|(?:--options-file|-optf|-specs|--specs|-fplugin|-fprofile-use|-fauto-profile)(?:=.*)?")
_DEBUG = re.compile(r"-g(?!0$|encode|eneric|no-).*|-G|--debug|--device-debug|-lineinfo|--generate-line-info")

_FOLDERS = ("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH")

_INCLUDE = re.compile(rb'^([ \t]*#[ \t]*include[ \t]*")(/[^"\n]*)', re.MULTILINE)


class Store(Protocol):
    """What keeps entries; each is some outputs by their role."""

    def get(self, key: str) -> dict[str, bytes] | None:
        """Return an entry, None if there is none."""
        ...

    def put(self, key: str, outputs: Mapping[str, bytes]) -> None:
        """Keep an entry."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """An object, what it took to make it, whenever that was, and the folders that its compile read files of."""

    object: bytes
    cost: Cost
    reads: frozenset[str]


@dataclass(frozen=True, slots=True)
class Variant:
    """What was read for one object: stable names, or absolute paths, with the SHA-256 of each; and its key."""

    deps: tuple[tuple[str, str], ...]
    object: str


class Recall:
    """Whole objects in a store. For many threads at once."""

    def __init__(self, store: Store, prefixes: Prefixes, tools: Tools | None = None) -> None:
        """Use ``store``; ``prefixes`` name the folders that differ from machine to machine."""
        self._store = store
        self._prefixes = prefixes
        self._tools = tools or Tools()

    def find(self, unit: Unit, files: Iterable[GeneratedFile], environment: Mapping[str, str]) -> Found | None:
        """Return a unit's object; None if none was made of exactly these inputs.

        ``files`` are those that we generated: where they include by absolute path, the stable name counts.
        ``environment`` is the compiler's, without what differs from run to run.
        """
        reader = _Reader(self._prefixes, files)
        base = self._base(unit, environment, reader)
        for variant in self._variants(base) if base else ():
            if variant.object == _object_key(base, variant.deps) and all(
                reader.digest(self._prefixes.path(name)) == digest for name, digest in variant.deps
            ):
                return _unpack(self._store.get(variant.object), variant)
        return None

    def keep(
        self,
        unit: Unit,
        files: Iterable[GeneratedFile],
        environment: Mapping[str, str],
        depfiles: Sequence[Path],
        made: bytes,
        cost: Cost,
    ) -> None:
        """Keep an object that was ``made``. Compilers wrote what they read into ``depfiles``.

        Files beside or below a depfile are temporary and do not count. OSError if a depfile can't be read.
        """
        reader = _Reader(self._prefixes, files)
        base = self._base(unit, environment, reader)
        if not base:
            return
        deps = tuple(
            sorted((self._prefixes.name(path), reader.digest(path)) for path in dependencies(depfiles, unit.cwd))
        )
        variant = Variant(deps, _object_key(base, deps))
        others = [other for other in self._variants(base) if other.object != variant.object]
        self._store.put(variant.object, {"object": made, "cost": json.dumps(asdict(cost)).encode()})
        self._store.put(base, {"manifest": _manifest([variant, *others][:MOST_VARIANTS])})

    def _base(self, unit: Unit, environment: Mapping[str, str], reader: _Reader) -> str:
        """Return the first key, "" where something about the unit can't be known."""
        argv = redirected(unit, "<output>", "<depfile>")
        tools = self._tools.of(unit, environment)
        sources = [reader.digest(source) for source in unit.sources]
        if argv is None or tools is None or "" in sources or any(_UNSEEN.fullmatch(word) for word in argv):
            return ""
        try:
            folders = [listing_digest(folder) for folder in _searched(unit, environment)]
        except OSError:
            return ""
        return digest_of(
            {
                "schema": SCHEMA,
                "language": unit.language.value,
                "module_id": unit.module_id,
                "argv": [self._prefixes.text(word) for word in _without_maps(argv)],
                "cwd": unit.cwd if any(_DEBUG.fullmatch(word) for word in argv) else "",
                "tools": tools,
                "sources": sources,
                "folders": folders,
                "environment": self._read(environment),
            }
        )

    def _read(self, environment: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return the variables that compilers read."""
        read = (name for name in sorted(environment) if READ_BY_COMPILERS.fullmatch(name))
        return [(name, self._prefixes.text(environment[name])) for name in read]

    def _variants(self, base: str) -> list[Variant]:
        """Return what is known of a unit, the latest first; nothing if it can't be read."""
        entry = self._store.get(base) or {}
        try:
            document: dict[str, Any] = json.loads(entry.get("manifest", b"{}"))
            if document.get("schema") != SCHEMA:
                return []
            return [
                Variant(tuple((str(name), str(digest)) for name, digest in item["deps"]), str(item["object"]))
                for item in document["variants"]
            ]
        except (ValueError, TypeError, KeyError, AttributeError):
            return []


def _without_maps(argv: Sequence[str]) -> list[str]:
    """Return a command without the map of this machine's folders: which there are says nothing of the object."""
    kept: list[str] = []
    for word in argv:
        if not word.startswith("-ffile-prefix-map="):
            kept.append(word)
        elif kept[-1:] == ["-Xcompiler"]:
            kept.pop()
    return kept


def _searched(unit: Unit, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the folders in which headers are looked for: those of the sources come first."""
    variables = [environment[name] for name in _FOLDERS if environment.get(name)]
    beside = (os.path.dirname(source) for source in unit.sources)  # noqa: PTH120
    return tuple(dict.fromkeys((*beside, *include_folders(unit.argv, variables, unit.cwd))))


def dependencies(depfiles: Sequence[Path], cwd: str) -> Collection[str]:
    """Return the files that depfiles name, absolute, without temporary ones."""
    temporary = tuple(f"{depfile.parent}/" for depfile in depfiles)
    found: dict[str, None] = {}
    for depfile in depfiles:
        for name in read_dependencies(depfile.read_text(encoding="utf-8", errors="surrogateescape")):
            path = _absolute(name, cwd)
            if not path.startswith(temporary):
                found[path] = None
    return found


def _absolute(name: str, cwd: str) -> str:
    path = os.path.join(cwd, name)  # noqa: PTH118
    normal = os.path.normpath(path)
    # x/../y is y only if x is not a link.
    return normal if os.path.exists(normal) or not os.path.exists(path) else path  # noqa: PTH110


class _Reader:
    """Digests of sources and headers as they count on any machine."""

    def __init__(self, prefixes: Prefixes, files: Iterable[GeneratedFile]) -> None:
        self._prefixes = prefixes
        self._generated = {file.path for file in files}
        self._known: dict[str, str] = {}

    def digest(self, path: str) -> str:
        """Return the SHA-256 of a file, "" if it is not there."""
        try:
            return self._generated_digest(path) if path in self._generated else known_sha256(path)
        except OSError:
            return ""

    def _generated_digest(self, path: str) -> str:
        if path not in self._known:
            text = _INCLUDE.sub(self._named, Path(path).read_bytes())
            self._known[path] = hashlib.sha256(text).hexdigest()
        return self._known[path]

    def _named(self, match: re.Match[bytes]) -> bytes:
        return match[1] + os.fsencode(self._prefixes.name(os.fsdecode(match[2])))


def _object_key(base: str, deps: Iterable[tuple[str, str]]) -> str:
    return digest_of({"schema": SCHEMA, "base": base, "deps": list(deps)})


def _manifest(variants: Iterable[Variant]) -> bytes:
    return json.dumps({"schema": SCHEMA, "variants": [asdict(variant) for variant in variants]}).encode()


def _unpack(entry: Mapping[str, bytes] | None, variant: Variant) -> Found | None:
    reads = folders_of(name for name, _ in variant.deps)
    try:
        return Found(entry["object"], Cost(**json.loads(entry["cost"])), reads) if entry else None
    except (ValueError, TypeError, KeyError):
        return None
