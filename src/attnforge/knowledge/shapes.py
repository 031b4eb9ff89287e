"""Shapes of attention that people run."""

from __future__ import annotations

from functools import cache

from attnforge.knowledge.data import load
from attnforge.model.base import Value
from attnforge.model.benchmark import Shape


class _Shapes(Value):
    shape: tuple[Shape, ...]


@cache
def shapes() -> tuple[Shape, ...]:
    """Return all shapes, in the order in which they are shown."""
    return load("shapes.toml", _Shapes).shape
