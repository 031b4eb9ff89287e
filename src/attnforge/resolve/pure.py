"""The plan of a pure Python package: one wheel for every Python, PyTorch, CUDA and GPU that it serves."""

from __future__ import annotations

from attnforge.model.host import Host
from attnforge.model.plan import BuildPlan, Estimate, Resolution, SourcePin, ToolchainPin
from attnforge.model.recipe import Recipe, Release
from attnforge.model.request import Request
from attnforge.model.target import Target
from attnforge.resolve.architectures import check_served
from attnforge.resolve.decisions import Notes
from attnforge.resolve.naming import chosen_label, wheel_name, with_commit
from attnforge.resolve.selection import choose_selection

ANY_PLATFORM = "any"


def resolve_pure(
    request: Request, recipe: Recipe, release: Release, version: str, source: SourcePin, host: Host, notes: Notes
) -> Resolution:
    """Return the plan: no toolchain, no compiler, no PyTorch. It says the same whatever these are asked to be.

    GPUs that are named are only held against what the package serves; its kernels, if it has any, are compiled where
    they run. Raises RequestError for a GPU that it does not serve, and where kernels are to be left out.
    """
    check_served(request.gpus, recipe, release, notes)
    python = ".".join((request.python or host.python).split(".")[:2])
    notes.decide("python", python, "runs the build; the wheel is for any")
    notes.decide("torch", "any", "nothing is compiled against it")
    notes.decide("toolchain", "none", f"{recipe.title} {version} is pure Python")
    profile, selection = choose_selection(request, recipe, None, notes)
    target = Target(python=python, torch="", cuda="", architectures=(), platform=ANY_PLATFORM)
    label = chosen_label(request.label, with_commit("", source))
    name = wheel_name(recipe.name, version, label, target)
    notes.decide("wheel", name, "name, version and label; any Python, any platform")
    plan = BuildPlan(
        package=recipe.name,
        version=version,
        source=source,
        target=target,
        profile=profile,
        selection=selection,
        toolchain=ToolchainPin(origin="none"),
        requirements=recipe.requirements,
        settings=tuple(sorted(recipe.settings.items())),
        label=label,
        wheel=name,
    )
    nothing = Estimate(seconds=0, peak_bytes=0, slots=1)
    return Resolution(plan=plan, decisions=notes.decisions, warnings=notes.warnings, estimate=nothing)
