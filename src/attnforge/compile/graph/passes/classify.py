"""Names the kernels in each unit, from its file name and the recipe's pattern."""

from __future__ import annotations

import re
from dataclasses import replace

from attnforge.errors import BuildError
from attnforge.model.graph import CompileGraph, Language, Pass, Unit
from attnforge.model.kernels import Kernels
from attnforge.model.plan import Selection


def classify(kernels: Kernels, selection: Selection) -> Pass:
    """Return the pass that names each unit's kernels.

    It raises BuildError where upstream has a kernel that the plan does not know of: the recipe's facts are then wrong
    for this version, and a wheel made on them would not be what the plan says.
    """
    known = {*selection.kept, *selection.dropped}

    def name(unit: Unit) -> Unit:
        match = re.fullmatch(kernels.pattern, unit.name)
        if match is None:
            return unit
        kernel = kernels.named(match)
        if kernel not in known:
            raise BuildError(
                f"upstream's build has {unit.name}, which the recipe does not know for this version",
                why="the kernels that the recipe lists and those in the source differ",
                hint="build a version that `attnforge packages` lists",
            )
        return replace(unit, kernel=kernel)

    def apply(graph: CompileGraph) -> CompileGraph:
        named = graph.map(name)
        missing = set(selection.kept) - {unit.kernel for unit in named.units}
        if missing and any(unit.language is Language.CUDA for unit in named.units):
            raise BuildError(
                f"upstream's build has no unit for {', '.join(sorted(missing))}",
                why="the kernels that the recipe lists and those in the source differ",
                hint="build a version that `attnforge packages` lists",
            )
        return named

    return apply
