"""The symbols of the C library, which every process on Linux with glibc has."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def glibc_symbols() -> frozenset[str]:
    """Return what glibc's C and math libraries define for others (``dlopen`` is there since 2.34, before in libdl)."""
    text = resources.files("attnforge.knowledge").joinpath("glibc.txt").read_text(encoding="ascii")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return frozenset(name for line in lines for name in line.split())
