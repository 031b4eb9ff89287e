"""Raises the C++ standard of units that include PyTorch's headers to the one that these need.

Upstream's setup.py may name a standard (FlashAttention 2.8.3: C++17), and a later PyTorch may need a newer one
(2.14: C++20, an #error in ATen/ATen.h). A unit that sees no header of PyTorch is unchanged, so that its object can be
used with every PyTorch.
"""

from __future__ import annotations

import re
from dataclasses import replace

from attnforge.compile.graph.each import each
from attnforge.model.graph import Language, Pass, Unit

_JOINED = re.compile(r"(?P<option>--?std=)(?P<dialect>c|gnu)\+\+(?P<year>\d\d)")
_VALUE = re.compile(r"(?P<option>)(?P<dialect>c|gnu)\+\+(?P<year>\d\d)")
_TORCH = re.compile(r"(?:-I|-isystem)?=?/.*/torch/include(?:/.*)?")


def standard(least: int) -> Pass:
    """Return the pass for a PyTorch that needs the C++ standard ``least`` (17, 20)."""

    def change(unit: Unit) -> Unit:
        if not _sees_torch(unit):
            return unit
        argv = tuple(
            _raised(word, least, separate=before in ("-std", "--std"))
            for before, word in zip(("", *unit.argv), unit.argv, strict=False)
        )
        return replace(unit, argv=argv)

    return each(change, Language.CUDA, Language.CXX)


def _sees_torch(unit: Unit) -> bool:
    return any(_TORCH.fullmatch(word) for word in unit.argv)


def _raised(word: str, least: int, *, separate: bool) -> str:
    match = (_VALUE if separate else _JOINED).fullmatch(word)
    # 98 and 03 are older than 11.
    if match is None or least <= int(match["year"]) < 90:
        return word
    return f"{match['option']}{match['dialect']}++{least}"
