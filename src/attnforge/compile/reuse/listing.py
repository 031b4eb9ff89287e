"""Notices that a folder of headers has other file names than before: a new header may be found instead of another."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence

# Names that no source includes, and that builds leave among headers.
_LEFT_OUT = re.compile(r".*\.(?:a|d|egg-info|log|o|obj|py|pyc|pyi|so|whl)|\.git|\.ninja_\w+|__pycache__")

_OPTION = re.compile(r"(?P<option>-isystem|-iquote|-idirafter|-I|--include-path|--system-include)=?(?P<folder>.*)")
_PASSED = re.compile(r"(?:-Xcompiler|--compiler-options)(?:=(?P<values>.*))?")

# A folder that changed just now may change again without another date.
_SETTLED_NS = 2 * 10**9

_known: dict[str, tuple[tuple[tuple[str, int], ...], str]] = {}


def include_folders(argv: Sequence[str], variables: Iterable[str], cwd: str) -> tuple[str, ...]:
    """Return the folders that a call of gcc, clang or nvcc searches for headers, in order, absolute.

    ``variables`` are the values of those that name more (CPATH): an empty part is ``cwd``, as for the compilers.
    """
    words = iter(list(_words(argv)))
    named = []
    for word in words:
        match = _OPTION.fullmatch(word)
        if match:
            named.append(match["folder"] or next(words, ""))
    named += [folder for value in variables for folder in value.split(":")]
    return tuple(dict.fromkeys(os.path.normpath(os.path.join(cwd, folder)) for folder in named))  # noqa: PTH118


def _words(argv: Sequence[str]) -> Iterator[str]:
    """Yield the words of a call, and those that nvcc passes to the host compiler."""
    rest = iter(argv)
    for word in rest:
        match = _PASSED.fullmatch(word)
        yield from (match["values"] or next(rest, "")).split(",") if match else (word,)


def listing_digest(folder: str) -> str:
    """Return the hex SHA-256 of the names of all files in a folder, at any depth; no folder is an empty one.

    Folders whose dates did not change are not listed again. OSError if one can't be listed.
    """
    known = _known.get(folder)
    if known is not None and all(_date(path) == date for path, date in known[0]):
        return known[1]
    dates: dict[str, int] = {}
    names = sorted(_names(folder, "", dates, set()))
    digest = hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()
    if dates and max(dates.values()) < time.time_ns() - _SETTLED_NS:
        _known[folder] = (tuple(dates.items()), digest)
    return digest


def _date(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 - each folder of a PyTorch for each unit
    except OSError:
        return -1


def _names(folder: str, under: str, dates: dict[str, int], seen: set[tuple[int, int]]) -> Iterator[str]:
    """Yield the names of all files below a folder; a link to a folder that was seen leads nowhere new."""
    try:
        found = os.stat(folder)  # noqa: PTH116
        if (found.st_dev, found.st_ino) in seen:
            return
        # The date is taken first: what comes later counts as a change.
        dates[folder] = found.st_mtime_ns
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    seen.add((found.st_dev, found.st_ino))
    for entry in sorted(entries, key=lambda entry: entry.name):
        if _LEFT_OUT.fullmatch(entry.name):
            continue
        if entry.is_dir():
            yield from _names(entry.path, f"{under}{entry.name}/", dates, seen)
        else:
            yield under + entry.name
