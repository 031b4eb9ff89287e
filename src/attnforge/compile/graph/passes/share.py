"""Marks the units whose code for one architecture comes from the PTX of another, as the plan says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from attnforge.compile.graph.commands import codes
from attnforge.compile.graph.each import each, unchanged
from attnforge.model.graph import Language, Pass, Unit
from attnforge.model.kernels import JOINT
from attnforge.model.sharing import Shared


def share(shared: Sequence[Shared]) -> Pass:
    """Return the pass that names, in each unit, the architectures whose PTX is to be that of another one.

    The command is unchanged: of its steps, a cicc is not run if its output follows from another's. So the unit's object
    is the same with sharing and without. A merged unit is marked where all of its members are.
    """

    def mark(unit: Unit) -> Unit:
        names, there = names_of(unit), set(codes(unit.argv))
        found = tuple(
            (f"sm_{one.code}", f"sm_{one.of}")
            for one in shared
            if names <= set(one.units) and {f"sm_{one.code}", f"sm_{one.of}"} <= there
        )
        return replace(unit, shares=found)

    return each(mark, Language.CUDA) if shared else unchanged


def names_of(unit: Unit) -> set[str]:
    """Return the names of upstream's units that are in a unit: of their kernels, else its file name."""
    return set(unit.kernel.split(JOINT)) if unit.kernel else {unit.name}
