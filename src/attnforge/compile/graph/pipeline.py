"""Puts the passes of a plan together, in the order in which they work."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from attnforge.compile.graph.passes.architectures import architectures
from attnforge.compile.graph.passes.classify import classify
from attnforge.compile.graph.passes.collect import collect
from attnforge.compile.graph.passes.compress import compress
from attnforge.compile.graph.passes.define import define
from attnforge.compile.graph.passes.group import group
from attnforge.compile.graph.passes.leave import leave
from attnforge.compile.graph.passes.price import price
from attnforge.compile.graph.passes.reproducible import reproducible
from attnforge.compile.graph.passes.select import select
from attnforge.compile.graph.passes.share import share
from attnforge.compile.graph.passes.standard import standard
from attnforge.knowledge.torch import cxx_of
from attnforge.model.graph import Pass
from attnforge.model.plan import BuildPlan
from attnforge.model.recipe import Recipe


def passes_for(
    plan: BuildPlan,
    recipe: Recipe,
    own: Sequence[Pass],
    cost_key: Callable[[str], str],
    prefixes: Mapping[str, str],
    folder: str,
    left: Collection[str] = (),
) -> tuple[Pass, ...]:
    """Return the passes: select, the recipe's ``own``, groups, architectures, prices, reproducibility, sharing.

    ``prefixes`` maps folders of this machine to their names in objects; generated files go into
    ``folder``. Units of the sources in ``left`` are left out first: their objects are in a universal wheel's library.
    """
    selecting: list[Pass] = [leave(left)] if left else []
    if recipe.kernels is not None and plan.selection.kept:
        macros = {recipe.features[name].macro for name in plan.selection.without} - {""}
        selecting += [classify(recipe.kernels, plan.selection), select(plan.selection, macros)]
    dispatch = recipe.kernels.dispatch if recipe.kernels else ""
    return (
        *selecting,
        *own,
        *([group(plan.groups, folder, read_source)] if plan.groups else []),
        define(plan.defines),
        *([standard(standard_of(plan))] if plan.target.torch else []),
        architectures(plan.target.architectures, recipe.unit_architectures),
        compress(plan.toolchain.cuda),
        collect(plan.toolchain.host_compiler),
        price(cost_key, dispatch),
        reproducible(prefixes),
        share(plan.shared),
    )


def standard_of(plan: BuildPlan) -> int:
    """Return the C++ standard that the headers of a plan's PyTorch need at least (17, 20)."""
    return plan.installed.cxx if plan.installed else cxx_of(plan.target.torch)


def read_source(path: str) -> str:
    """Return the text of a source; OSError or UnicodeError if it can't be read."""
    return Path(path).read_text(encoding="utf-8")
