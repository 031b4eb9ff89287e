"""What an extension of a universal wheel adds to it. Nothing is made here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import InvalidVersion, Version

from attnforge.embedded import read_plan, read_universal
from attnforge.errors import RequestError, WheelError
from attnforge.knowledge.torch import TorchRelease
from attnforge.model.host import Installed
from attnforge.model.plan import BuildPlan, PlanWarning, ToolchainPin
from attnforge.model.request import Request
from attnforge.model.universal import Pair, Universal, sorted_pairs
from attnforge.resolve.advice import apply_advisories
from attnforge.resolve.decisions import Notes
from attnforge.resolve.installed import check_named, pair_of_installed, pin_of
from attnforge.resolve.pairs import pairs_for, with_pairs
from attnforge.resolve.releases import check_release
from attnforge.resolve.spans import torches_of
from attnforge.resolve.toolchain import choose_toolkit, with_compiler
from attnforge.resolve.versions import named_cuda
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

    Of ``request`` count ``torch`` and ``python`` (as in a universal build; the wheel's own where one is not given), or
    ``torch`` ``installed`` or ``env`` for the PyTorch and Python of one environment,
    ``source`` for a folder or archive, ``toolchain``, ``jobs``, ``memory``, ``store``. ``recipe_file`` is the user's
    own recipe, where the wheel was built with one. RequestError where the wheel can't be extended so.
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
    installed = environment_for(machine, request)
    read = () if installed else read_torches(request.torch or _held_torches(plan), machine.settings)
    pairs = _pairs_of(plan, installed, notes) if installed else _new_pairs(plan, request, notes, read)
    torches = torches_of(pairs)
    # The kernels are there already: what counts for them is the compiler that made them.
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
        f"{wheel.name} is no universal wheel",
        why="only a wheel that was built with --universal holds its kernels apart from modules for Python and PyTorch",
        hint="build one: attnforge build PACKAGE --universal --torch 2.11,2.12 --python 3.10-3.13",
    )


def _held_torches(plan: BuildPlan) -> str:
    return ",".join(dict.fromkeys(pair.torch for pair in plan.pairs))


def _new_pairs(plan: BuildPlan, request: Request, notes: Notes, read: Sequence[TorchRelease]) -> tuple[Pair, ...]:
    if not (request.torch or request.python):
        raise RequestError("nothing to add is named", hint="--torch 2.14, --python 3.13, or both")
    torches = request.torch or _held_torches(plan)
    pythons = request.python or ",".join(dict.fromkeys(pair.python for pair in plan.pairs))
    held = {pair.key for pair in plan.pairs}
    named = named_cuda(torches, read)
    if named not in ("", plan.target.cuda):
        raise RequestError(
            f"--torch {torches} is built with CUDA {named}, and the wheel is for {plan.target.cuda}",
            hint="build a wheel of its own for that CUDA: attnforge build --universal",
        )
    asked = pairs_for(torches, pythons, plan.target.cuda, notes, read)
    new = tuple(pair for pair in asked if pair.key not in held)
    if not new:
        raise RequestError(f"the wheel has {', '.join(map(str, asked))} already", hint="it can be installed as it is")
    return tuple(_as_held(pair, plan, notes) for pair in new)


def _pairs_of(plan: BuildPlan, installed: Installed, notes: Notes) -> tuple[Pair, ...]:
    """Return the pair that an environment is, alone; RequestError where it is none of this wheel's."""
    pair = pair_of_installed(installed, pin_of(installed))
    if installed.cuda != plan.target.cuda:
        raise RequestError(
            f"{installed} is built with CUDA {installed.cuda}, and the wheel is for {plan.target.cuda}",
            hint="build a wheel of its own for that CUDA: attnforge build --universal --torch installed",
        )
    if pair.key in {held.key for held in plan.pairs}:
        raise RequestError(f"the wheel has {pair} already", hint="it can be installed as it is")
    notes.decide("torch", pair.torch, str(installed))
    return (pair,)


def _as_held(pair: Pair, plan: BuildPlan, notes: Notes) -> Pair:
    """Return a pair with the patch that the wheel has of its PyTorch: it has one of each minor, as any build has."""
    patch = next((held.torch for held in plan.pairs if held.torch_minor == pair.torch_minor), pair.torch)
    if patch != pair.torch:
        told = (
            f"the module for {pair} is compiled with PyTorch {patch}, and not {pair.torch}, as others of the wheel are"
        )
        notes.warn("torch", f"{told}: modules load with each patch of a minor")
    return pair.model_copy(update={"torch": patch})
