"""The plan of a pure Python package: one wheel for every Python, PyTorch, CUDA and GPU that it serves."""

from __future__ import annotations

import re

from attnforge.errors import RequestError
from attnforge.model.host import Host
from attnforge.model.plan import BuildPlan, Estimate, Resolution, SourcePin, ToolchainPin
from attnforge.model.recipe import Recipe
from attnforge.model.release import Release
from attnforge.model.request import Request
from attnforge.model.target import Target, is_free_threaded
from attnforge.model.versions import shortened
from attnforge.resolve.architectures import check_served
from attnforge.resolve.decisions import Notes
from attnforge.resolve.form import check_name
from attnforge.resolve.naming import chosen_label, wheel_name, with_commit
from attnforge.resolve.selection import choose_selection
from attnforge.resolve.torch import read_python

ANY_PLATFORM = "any"

PURE = Release(versions="", compiled=False)
"""What is known of a package without a recipe whose source compiles nothing."""


def resolve_pure(
    request: Request, recipe: Recipe, release: Release, version: str, source: SourcePin, host: Host, notes: Notes
) -> Resolution:
    """Return the plan: no toolchain, no compiler, no PyTorch. It is the same whatever the request says of these.

    GPUs that are named are only compared with what the package serves; its kernels, if it has any, are compiled where
    they run. Raises RequestError for a GPU that it does not serve, and where kernels are to be left out.
    """
    check_served(request.gpus, recipe, release, notes)
    python = read_python(request.python) or ".".join(host.python.split(".")[:2])
    if is_free_threaded(python):
        # It only runs the build, and the wheel serves either Python.
        python = python.removesuffix("t")
    if not re.fullmatch(r"3\.\d{1,3}", python):
        raise RequestError(f"--python can't be {shortened(python)!r}", hint="for example --python 3.12")
    notes.decide("python", python, "runs the build; the wheel is for any")
    notes.decide("torch", "any", "nothing is compiled against it")
    notes.decide("toolchain", "none", f"{recipe.title} {version} is pure Python")
    _check_whole(request, recipe, version)
    profile, selection = choose_selection(request, recipe, None, notes)
    target = Target(python=python, torch="", cuda="", architectures=(), platform=ANY_PLATFORM)
    label = chosen_label(request.label, with_commit("", source))
    name = check_name(wheel_name(recipe.name, version, label, target))
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
    return notes.resolution(plan, Estimate(seconds=0, peak_bytes=0, slots=1))


def _check_whole(request: Request, recipe: Recipe, version: str) -> None:
    asked = (request.head_dims, request.dtypes, request.without, request.profile not in ("", "full"))
    if any(asked):
        raise RequestError(
            f"no kernels of {recipe.name} can be left out",
            why=f"{recipe.title} {version} is pure Python: its wheel has no kernels",
            hint="leave out --profile, --head-dims, --dtypes and --without",
        )
