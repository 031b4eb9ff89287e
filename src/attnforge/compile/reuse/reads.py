"""Which folders a compile read files from: it says for which versions an object can be used.

An object whose compile read nothing of PyTorch or Python can be used with every version of these. The compiler's
depfiles say what it read; nothing is guessed from the text of sources.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

SYSTEM = "system"
"""All folders that have no name."""

# Names of folders (workflow.inputs.named_folders) that hold headers of PyTorch, of what it depends on, and of Python.
BOUND = frozenset({"site-packages", "environment", "python"})

# A distribution's Python has its headers among the system's: /usr/include/python3.11/Python.h.
_PYTHON = re.compile(r"/python3\.\d+[a-z]*/")


def folders_of(names: Iterable[str]) -> frozenset[str]:
    """Return the folders of files by their stable names (``source/csrc/x.h``), or absolute paths."""
    return frozenset(_folder(name) for name in names)


def _folder(name: str) -> str:
    if not name.startswith("/"):
        return name.partition("/")[0]
    return "python" if _PYTHON.search(name) else SYSTEM


def is_neutral(reads: Collection[str] | None) -> bool:
    """Say whether an object is known to have read no header of PyTorch or Python.

    Flags may change the ABI, too (std::string of C++11). That shows in the names of symbols, which then do not match.
    """
    return reads is not None and BOUND.isdisjoint(reads)
