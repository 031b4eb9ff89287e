"""What an extension of a universal wheel adds to it. Nothing is made here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from packaging.version import InvalidVersion, Version

from attnforge.errors import RequestError, WheelError
from attnforge.model.host import Installed
from attnforge.model.plan import BuildPlan, PlanWarning, ToolchainPin
from attnforge.model.request import Request
from attnforge.model.universal import Pair, Universal, sorted_pairs
from attnforge.resolve.advice import apply_advisories
from attnforge.resolve.compilers import with_compiler
from attnforge.resolve.decisions import Notes
from attnforge.resolve.estimate import warn_of_memory
from attnforge.resolve.installed import check_named
from attnforge.resolve.pairs import with_pairs
from attnforge.resolve.releases import check_release
from attnforge.resolve.spans import torches_of
from attnforge.resolve.toolchain import choose_toolkit
from attnforge.wheelfile.embedded import read_plan, read_universal
from attnforge.workflow.addedpairs import held_torches, installed_pair, new_pairs
from attnforge.workflow.installed import environment_for
from attnforge.workflow.machine import Machine
from attnforge.workflow.origin import check_source_pin, held_recipe, held_source
from attnforge.workflow.redist import asked_release
from attnforge.workflow.sources.kinds import Located
from attnforge.workflow.torchindex import read_torches


@dataclass(frozen=True, slots=True)
class Extension:
    """What is added to which wheel.

    ``plan`` is that of the new wheel, ``pairs`` those that it has and the old one has not.
    """

    wheel: Path
    universal: Universal
    plan: BuildPlan
    pairs: tuple[Pair, ...]
    located: Located
    toolchain: ToolchainPin
    request: Request
    warnings: tuple[PlanWarning, ...] = ()
    installed: Installed | None = None


def plan_extension(machine: Machine, wheel: Path, request: Request, recipe_file: str = "") -> Extension:
    """Return what an extension would do.

    Of ``request``, ``torch`` and ``python`` are used as in a universal build; the wheel's own are taken where one is
    not given. ``torch`` may be ``installed``, or ``env`` names an environment: then its PyTorch and Python are added.
    ``source`` (a folder, an archive or a git URL), ``toolchain``, ``jobs``, ``memory`` and ``store`` are used, too.
    ``recipe_file`` is the user's own recipe, where the wheel was built with one. RequestError where the wheel can't be
    extended so.
    """
    universal = read_universal(wheel)
    plan = read_plan(wheel)
    if plan is None or universal is None:
        raise _not_universal(wheel, plan)
    _check_version(plan, wheel)
    recipe, release = held_recipe(plan, recipe_file)
    check_source_pin(plan, recipe, release, request.source)
    notes = Notes()
    check_named(request)
    warn_of_memory(request, machine.host, notes)
    installed = environment_for(machine, request)
    read = () if installed else read_torches(request.torch or held_torches(plan), machine.settings)
    pairs = installed_pair(plan, installed, notes) if installed else new_pairs(plan, request, notes, read)
    torches = torches_of(pairs)
    # The kernels are in the wheel: known faults of the compiler that made them matter.
    compiler = plan.toolchain.cuda
    check_release(recipe, release, compiler, torches, plan.target.cuda, read)
    built = plan.selection.features
    apply_advisories(plan.package, plan.version, plan.source.commit, plan.target, compiler, torches, built, notes)
    fetched = asked_release(machine, request)
    toolkit = choose_toolkit(plan.target.cuda, request.toolchain, machine.host, notes, fetched)
    pin = with_compiler(toolkit, (), machine.host, notes)
    if pin.host_compiler != plan.toolchain.host_compiler:
        pairs = tuple(pair.model_copy(update={"host_compiler": pin.host_compiler}) for pair in pairs)
    located = held_source(plan, recipe, request.source)
    extended = with_pairs(plan, sorted_pairs((*plan.pairs, *pairs)), recipe, release)
    return Extension(wheel, universal, extended, pairs, located, pin, request, notes.warnings, installed)


def _check_version(plan: BuildPlan, wheel: Path) -> None:
    try:
        Version(plan.version)
    except InvalidVersion as error:
        raise WheelError(f"{wheel.name} has a plan of no version", why=str(error)) from error


def _not_universal(wheel: Path, plan: BuildPlan | None) -> RequestError:
    if plan is not None and not plan.is_compiled:
        what = f"{wheel.name} is pure Python: it is for every Python and PyTorch already"
        return RequestError(what, hint="nothing has to be added to it")
    return RequestError(
        f"{wheel.name} is not a universal wheel",
        why="only a wheel that was built with --universal has kernels apart from its modules for Python and PyTorch",
        hint="build one: attnforge build PACKAGE --universal --torch 2.11,2.12 --python 3.10-3.13",
    )
