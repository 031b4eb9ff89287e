"""Sets the name under which each unit's time and memory are predicted and learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from attnforge.model.cost import DISPATCH
from attnforge.model.graph import Pass, Unit


def price(cost_key: Callable[[str], str], dispatch: str = "") -> Pass:
    """Return the pass that sets each unit's cost key: by its kernels, as the ``dispatch`` unit, else by its name."""

    def named(unit: Unit) -> Unit:
        what = unit.kernel or (DISPATCH if dispatch and unit.name == dispatch else unit.name)
        return replace(unit, cost_key=cost_key(what))

    return lambda graph: graph.map(named)
