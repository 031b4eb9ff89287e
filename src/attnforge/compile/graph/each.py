"""Passes that change each unit by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from attnforge.model.graph import CompileGraph, Language, Pass, Unit


def each(change: Callable[[Unit], Unit], *languages: Language) -> Pass:
    """Return the pass that changes each unit that is compiled; if ``languages`` are named, only units of these."""

    def changed(unit: Unit) -> Unit:
        is_wanted = not unit.empty and (not languages or unit.language in languages)
        return change(unit) if is_wanted else unit

    return lambda graph: graph.map(changed)


def adding(words: Iterable[str], *languages: Language) -> Pass:
    """Return the pass that adds words to the command of each unit that is compiled, of these languages."""
    added = tuple(words)
    return each(lambda unit: replace(unit, argv=(*unit.argv, *added)), *languages)


def unchanged(graph: CompileGraph) -> CompileGraph:
    """Change nothing: the pass for a build that does not need one."""
    return graph
