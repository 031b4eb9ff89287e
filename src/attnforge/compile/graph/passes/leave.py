"""Leaves out units whose objects are in the kernels library of a universal wheel."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from attnforge.model.graph import Pass, Unit


def leave(sources: Collection[str]) -> Pass:
    """Return the pass that makes the units of these sources (absolute paths) empty."""
    left = frozenset(sources)

    def change(unit: Unit) -> Unit:
        return replace(unit, empty=True, fallback=()) if left.intersection(unit.sources) else unit

    return lambda graph: graph.map(change)
