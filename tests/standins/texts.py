"""The texts of C++ that attnforge puts before FlashAttention's host code."""

from __future__ import annotations

from collections.abc import Callable

from attnforge.model.graph import CompileGraph, Language, Unit
from attnforge.model.plan import BuildPlan, Resolution
from attnforge.recipes.catalogue import find_adapter, find_recipe
from attnforge.recipes.flash_attn import neutral

Plans = Callable[..., BuildPlan]

RELEASES = {"flash-attn": "2.8.3", "flash-attn-3": "3.0.0b1"}
LAYOUT = neutral.LAYOUTS[0]


def plans(make_resolution: Callable[..., Resolution]) -> Plans:
    """Return what makes the plan of a build for an H100, of a universal wheel's first pair where that is asked for."""

    def plan(package: str, **changes: object) -> BuildPlan:
        # How units are merged is in no text, and takes most of the time of a plan.
        fields = {"package": package, "version": RELEASES[package], "profile": "full", "groups": "none", **changes}
        if fields.get("universal"):
            fields |= {"torch": "2.11", "python": "3.12"}
        made = make_resolution(**fields).plan
        return made.at(made.pairs[0]) if made.is_universal else made

    return plan


def host_text(plan: BuildPlan) -> str:
    """Return what the host unit of a plan includes first, by the passes of its adapter."""
    recipe = find_recipe(plan.package)
    assert recipe.kernels is not None
    units = tuple(
        Unit(f"/b/{name}.o", (f"/s/{name}",), ("c++", "-c", f"/s/{name}"), "/b", Language.CXX)
        for name in ("flash_api.cpp", "flash_api_stable.cpp")
    )
    graph = CompileGraph(units)
    for change in find_adapter(recipe).passes(plan, recipe, "/g", {LAYOUT.name}):
        graph = change(graph)
    return next((file.text for file in graph.files if file.path == "/g/attnforge_dispatch.h"), "")
