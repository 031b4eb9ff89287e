"""Stable names for files in folders of this machine, so that neither objects nor keys hold its paths."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from posixpath import normpath

from attnforge.files import replacing

# A path in an argument begins it, follows its option (-I/x, -isystem/x) or one of these.
_BEFORE = r"(?P<before>\A(?:-[A-Za-z]+)?|[=:,;\"'\s])"
_AFTER = r"(?=\Z|[/=:,;\"'\s])"

# A line marker of a preprocessed file that names an absolute path: # 12 "/x/y.h" 1 3. Raw strings are not told apart:
# one that holds a marker of a file of this machine has no place in code.
_MARKER = re.compile(rb'\n# (\d+) "(/[^"\\\n]*(?:\\.[^"\\\n]*)*)"')


# Of a preprocessed file that is worked on at once.
_CHUNK_BYTES = 1 << 20


class Prefixes:
    """Maps folders of this machine to names, such as /home/me/sdist to "source", and back. Immutable.

    A folder inside another one goes first. Several folders may have one name (a link and where it leads to): the
    way back leads to the first.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        """Use ``names`` by absolute folder. ValueError for a folder that is not absolute and for a name that is."""
        if any(not folder.startswith("/") or not name or name.startswith("/") for folder, name in names.items()):
            raise ValueError(f"not a map from absolute folders to names: {dict(names)}")
        pairs = [(normpath(folder), normpath(name)) for folder, name in names.items()]
        self._names = sorted(pairs, key=lambda pair: -len(pair[0]))
        first = {name: folder for folder, name in reversed(pairs)}
        self._folders = sorted(first.items(), key=lambda pair: -len(pair[0]))
        alternatives = "|".join(re.escape(folder) for folder, _ in self._names)
        self._pattern = re.compile(f"{_BEFORE}(?P<folder>{alternatives}){_AFTER}") if pairs else None
        self._by_folder = dict(reversed(self._names))

    def name(self, path: str) -> str:
        """Return the stable name of an absolute path; any other path unchanged."""
        if not path.startswith("/"):
            return path
        normal = normpath(path)
        for folder, name in self._names:
            if normal == folder or normal.startswith(folder + "/"):
                return name + normal[len(folder) :]
        return path

    def path(self, name: str) -> str:
        """Return the path on this machine that has a stable name; a name of no folder here unchanged."""
        for known, folder in self._folders:
            if name == known or name.startswith(known + "/"):
                return folder + name[len(known) :]
        return name

    def text(self, text: str) -> str:
        """Return an argument or the value of a variable with all folders in it replaced by their names."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: match["before"] + self._by_folder[match["folder"]], text)

    def settle_markers(self, text: bytes) -> bytes:
        """Return a preprocessed text with the paths in its line markers replaced: 20 MB in 0.2 s."""
        return self._settled(text, _Written(self))

    def settle_file(self, path: Path) -> None:
        """Replace the paths in the line markers of a preprocessed file, a megabyte in memory at a time. OSError."""
        written = _Written(self)
        with replacing(path, lasting=False) as made, path.open("rb") as file, made.open("wb") as out:
            while lines := file.readlines(_CHUNK_BYTES):
                out.write(self._settled(b"".join(lines), written))

    @staticmethod
    def _settled(text: bytes, written: Mapping[bytes, bytes]) -> bytes:
        return _MARKER.sub(lambda match: b"\n# %s %s" % (match[1], written[match[2]]), b"\n" + text)[1:]


class _Written(dict[bytes, bytes]):
    """The names by path, both as written in line markers; each is made once."""

    def __init__(self, prefixes: Prefixes) -> None:
        super().__init__()
        self._prefixes = prefixes

    def __missing__(self, path: bytes) -> bytes:
        name = self._prefixes.name(os.fsdecode(re.sub(rb"\\(.)", rb"\1", path)))
        self[path] = b'"' + re.sub(rb'([\\"])', rb"\\\1", os.fsencode(name)) + b'"'
        return self[path]
