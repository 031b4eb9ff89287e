"""Adds the definitions without which this CUDA can't compile these sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from attnforge.model.graph import CompileGraph, Language, Pass, Unit


def define(definitions: Sequence[str]) -> Pass:
    """Return the pass that gives every CUDA unit the ``definitions``, each ``NAME=VALUE``."""
    flags = tuple(f"-D{definition}" for definition in definitions)

    def add(unit: Unit) -> Unit:
        if unit.language is not Language.CUDA or unit.empty:
            return unit
        return replace(unit, argv=(*unit.argv, *flags))

    def apply(graph: CompileGraph) -> CompileGraph:
        return graph.map(add)

    return apply
