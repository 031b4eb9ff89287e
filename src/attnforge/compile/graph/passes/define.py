"""Adds the definitions without which this CUDA can't compile these sources."""

from __future__ import annotations

from collections.abc import Sequence

from attnforge.compile.graph.each import adding
from attnforge.model.graph import Language, Pass


def define(definitions: Sequence[str]) -> Pass:
    """Return the pass that gives every CUDA unit the ``definitions``, each ``NAME=VALUE``."""
    return adding((f"-D{definition}" for definition in definitions), Language.CUDA)
