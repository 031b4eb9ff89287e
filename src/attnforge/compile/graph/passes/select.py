"""Keeps the kernels that the plan asks for. What is left out becomes an empty object, since the link names it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from attnforge.compile.graph.each import each
from attnforge.model.graph import Language, Pass, Unit
from attnforge.model.plan import Selection


def select(selection: Selection, macros: Collection[str]) -> Pass:
    """Return the pass that drops units by their kernels and defines ``macros`` in the units of kernels that stay.

    The macros drop a feature's code from a kernel. They are not given to host units: there a guard of ours has to see
    the call and raise (FlashAttention 2's own macros ignore the argument where host and kernels disagree).
    """
    defines = tuple(f"-D{macro}" for macro in sorted(macros))

    def keep(unit: Unit) -> Unit:
        if not unit.kernel:
            return unit
        if unit.kernel in selection.dropped:
            return replace(unit, empty=True)
        return replace(unit, argv=(*unit.argv, *defines))

    return each(keep, Language.CUDA)
