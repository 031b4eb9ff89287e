"""Units whose kernels cicc compiles in several parts at once: what a plan says of them, and what steps are called."""

from __future__ import annotations

import re

from attnforge.model.base import Value

INDEX = "index"
"""The run of cicc that writes all kernels of a unit in their order, without their bodies."""


_PART = re.compile(rf" (?:{INDEX}|part \d+ of \d+)$")


class Parted(Value):
    """A unit of upstream's whose kernels cicc compiles in ``parts``.

    ``unit`` is the name of its kernels. Each part is named by the features that its kernels have or, with ``no-``
    before it, do without, joined by ``+``: ``softcap``, ``no-softcap+dropout``. Each kernel is in one of them.
    """

    unit: str
    parts: tuple[str, ...]


def features_of(part: str) -> dict[str, bool]:
    """Return the features that the kernels of a part have (true) or do without."""
    return {word.removeprefix("no-"): not word.startswith("no-") for word in part.split("+")}


def is_part(label: str) -> bool:
    """Say whether a step is that of one part of a unit, or of its index."""
    return _PART.search(label) is not None


def part_labels(label: str, count: int) -> tuple[str, ...]:
    """Return the labels of the steps that stand for one in so many parts: first the index, then each part."""
    parts = (f"part {number} of {count}" for number in range(1, count + 1))
    return tuple(f"{label} {name}" for name in (INDEX, *parts))
