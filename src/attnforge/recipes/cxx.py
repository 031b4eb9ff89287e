"""C++ texts of recipes: files in their ``cxx`` folders, with ``${name}`` in place of values."""

from __future__ import annotations

from functools import cache
from importlib import resources
from string import Template


def cxx(path: str, **values: str | int) -> str:
    """Return the text of a file below recipes/ (``flash_attn/cxx/call.h``) with its values filled in.

    Raises KeyError where a value is missing.
    """
    return Template(_read(path)).substitute(values)


@cache
def _read(path: str) -> str:
    return resources.files("attnforge.recipes").joinpath(path).read_text(encoding="utf-8")
