"""Takes the build machine's folders out of where a shared library looks for others.

``DT_RPATH`` and ``DT_RUNPATH`` are lists of folders (ld.so(8)). Those that begin with ``$ORIGIN`` are in the wheel or
beside it. All others are folders of the build machine, or go by the current folder of the process that loads the
library: another machine lacks them, or somebody else may write there. Their names would also make the bytes of a wheel
depend on where it was built.

The image is changed in place, and nothing in it moves: bytes of the string table become zero, and a row of the dynamic
section goes.
"""

from __future__ import annotations

from collections.abc import Sequence

from attnforge.elf import DYNAMIC_ROW, Elf, SearchPath
from attnforge.errors import WheelError

_ORIGIN = ("$ORIGIN", "${ORIGIN}")


def without_build_paths(image: bytes) -> bytes:
    """Return a shared library that looks for others only beside itself.

    What is no readable ELF image, or has nothing to take out, is returned unchanged; the audit reports it.
    """
    try:
        elf = Elf.read(image)
        paths, names = elf.search_paths(), elf.dynamic_names()
    except WheelError:
        return image
    changed = bytearray(image)
    for path in sorted(paths, key=lambda one: one.row, reverse=True):
        kept = ":".join(folder for folder in path.text.split(":") if _is_beside(folder))
        if kept != path.text:
            _rewrite(changed, path, kept, names, [one.start for one in paths])
    return bytes(changed)


def _is_beside(folder: str) -> bool:
    return any(folder == origin or folder.startswith(f"{origin}/") for origin in _ORIGIN)


def _rewrite(image: bytearray, path: SearchPath, kept: str, names: Sequence[int], starts: Sequence[int]) -> None:
    """Put ``kept`` in the place of a path. Strings of the table may be the ends of others: these bytes stay."""
    stop = path.start + len(path.text.encode())
    inside = [at for at in (*names, *starts) if path.start <= at <= stop and at != path.start]
    shared = path.start in names or starts.count(path.start) > 1
    first = min(inside, default=stop)
    end = path.start + len(kept.encode())
    if not kept:
        _remove_row(image, path)
    if shared or (kept and end >= first and inside):
        return  # the audit warns of what could not be taken out
    image[path.start : end] = kept.encode()
    image[end:first] = bytes(first - end)


def _remove_row(image: bytearray, path: SearchPath) -> None:
    following = image[path.row + DYNAMIC_ROW : path.table_end]
    image[path.row : path.table_end] = following + bytes(DYNAMIC_ROW)
