"""The resolver: request, recipe, source and host to a plan. Pure: it reads no file and runs no program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from packaging.utils import canonicalize_name

from attnforge.knowledge.redist import CudaRelease
from attnforge.knowledge.targets import find_target
from attnforge.knowledge.torch import TorchRelease
from attnforge.model.cost import Prediction
from attnforge.model.host import Active, Host
from attnforge.model.plan import BuildPlan, Resolution, Selection, SourcePin, TorchPin
from attnforge.model.recipe import Recipe
from attnforge.model.release import Release
from attnforge.model.request import Request
from attnforge.model.sharing import Proof
from attnforge.model.target import Gpu, Target
from attnforge.model.universal import Pair
from attnforge.resolve.advice import apply_advisories
from attnforge.resolve.architectures import choose_architectures, choose_gpus
from attnforge.resolve.compilers import with_compiler
from attnforge.resolve.decisions import Notes
from attnforge.resolve.estimate import estimate, warn_of_memory
from attnforge.resolve.form import check_form, check_name
from attnforge.resolve.grouping import choose_groups
from attnforge.resolve.hosts import check_hosts, check_processor
from attnforge.resolve.installed import choose_installed, pair_of_installed, wants_installed
from attnforge.resolve.naming import (
    chosen_label,
    local_label,
    torch_requirement,
    uses_stable_abi,
    wheel_name,
    with_commit,
)
from attnforge.resolve.pairs import choose_pairs
from attnforge.resolve.parts import choose_parts
from attnforge.resolve.predictions import Made, expected_units, priors
from attnforge.resolve.ptx import choose_shared
from attnforge.resolve.pure import PURE, resolve_pure
from attnforge.resolve.releases import check_release, warn_uncovered
from attnforge.resolve.selection import choose_selection, settings_of
from attnforge.resolve.spans import torches_of
from attnforge.resolve.toolchain import choose_toolkit
from attnforge.resolve.torch import choose_cuda, choose_python, choose_torch


def with_target(request: Request, package: str) -> Request:
    """Return the request completed by its named target. What the user says takes precedence.

    ``package`` is the name of the package in the request, "" where it has none. A version, a source or a commit that
    the user names stays, with the GPUs that the target has for that package.
    """
    if not request.target:
        return request
    named = find_target(request.target)
    meant = named.packages.get(canonicalize_name(package))
    # An environment has its own Python, PyTorch and CUDA; 2.7.1+cu126 names its CUDA.
    own = wants_installed(request)
    filled = {
        "python": request.python or ("" if own else named.python),
        "torch": request.torch or ("" if own else named.torch),
        "cuda": request.cuda or ("" if own or "+" in request.torch else named.cuda),
        "gpus": request.gpus or (meant.gpus if meant else ()) or named.gpus,
        "label": request.label or named.label,
    }
    if meant and not request.source and request.package.strip() == package:
        filled |= {"package": meant.package, "source": meant.source}
    return request.model_copy(update=filled)


def resolve(
    request: Request,
    recipe: Recipe,
    version: str,
    source: SourcePin,
    host: Host,
    expect: Callable[[Mapping[str, Prediction]], Mapping[str, Prediction]] = dict,
    made: Callable[[BuildPlan], Made] = lambda plan: Made(),
    pure: str = "",
    fetched: CudaRelease | None = None,
    proofs: Callable[[str], Sequence[Proof]] = lambda nvcc: (),
    active: Active | None = None,
    read: Sequence[TorchRelease] = (),
) -> Resolution:
    """Resolve a request to a plan, with a reason for each decision.

    ``version`` and ``source`` are those of the index or the folder. ``pure`` says how it is known of a source without a
    recipe that it compiles nothing, else "". ``fetched`` is NVIDIA's release that the request names. ``proofs`` returns
    what is proven of architectures that share PTX, for a build of nvcc. ``active`` is the environment whose PyTorch is
    the target, with those that were passed over. ``read`` are releases of PyTorch that only the index knows.
    ``expect`` turns the recipe's predictions, by key, into this machine's (compile.cost), and ``made`` says what
    earlier builds of a plan left: both only for the estimate.
    Raises RequestError for what can't be met, HostError where the machine lacks something.
    """
    notes = Notes()
    release = _release(request, recipe, version, source, pure, read, notes)
    if release is not None and not release.compiled:
        return resolve_pure(request, recipe, release, version, source, host, notes)
    asked, active = _Asked(request, recipe, release, version, source, host, notes, fetched, read), active or Active()
    warn_of_memory(request, host, notes)
    ground = _ground(asked, active)
    plan = _plan(asked, ground, proofs)
    there = made(plan)
    # Nothing is known of the units of a version that no release covers.
    expected = list(expected_units(plan, recipe, expect(priors(plan, recipe)), there)) if release else []
    known = bool(expected) or there.wheel or (release is not None and bool(there.sources))
    took = estimate(expected, request, host, there).model_copy(update={"known": known})
    return notes.resolution(plan, took, ground.gpus, str(active.installed) if active.installed else "")


def _release(
    request: Request,
    recipe: Recipe,
    version: str,
    source: SourcePin,
    pure: str,
    read: Sequence[TorchRelease],
    notes: Notes,
) -> Release | None:
    """Return what is known of the version, after the checks that need no machine."""
    release = recipe.release(version) or (PURE if pure else None)
    notes.decide("source", f"{source.kind} {source.name}", source.pinned_by)
    if pure:
        notes.decide("kind", "pure Python", pure)
    check_form(request, recipe, release, version, read)
    warn_uncovered(recipe, release, version, notes)
    return release


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is resolved, on which machine, with what was looked up for it, and where the reasons go."""

    request: Request
    recipe: Recipe
    release: Release | None
    version: str
    source: SourcePin
    host: Host
    notes: Notes
    fetched: CudaRelease | None
    read: Sequence[TorchRelease]


@dataclass(frozen=True, slots=True)
class _Ground:
    """What the wheel is for: the target, the pairs of a universal wheel, the GPUs asked for, an installed PyTorch."""

    target: Target
    pairs: tuple[Pair, ...]
    gpus: tuple[Gpu, ...]
    installed: TorchPin | None

    @property
    def torches(self) -> tuple[str, ...]:
        """Each PyTorch that the wheel is for."""
        return torches_of(self.pairs) or (self.target.torch,)


def _ground(asked: _Asked, active: Active) -> _Ground:
    """Choose GPUs, machine code, Python, PyTorch and CUDA.

    The target of a universal wheel has the Python and the PyTorch of the first pair. The pairs say what it is for, so
    its plan is the same whether its PyTorch is fetched or installed already.
    """
    request, host, notes = asked.request, asked.host, asked.notes
    check_processor(host)
    gpus = choose_gpus(request.gpus, host, notes)
    architectures = choose_architectures(gpus, asked.recipe, asked.release, notes)
    check_hosts(gpus)
    pairs: tuple[Pair, ...] = ()
    pin: TorchPin | None = None
    if active.installed:
        pin = choose_installed(active.installed, active, notes)
        python, torch, cuda = active.installed.minor, pin.version, active.installed.cuda
        if request.universal:
            pairs, pin = (pair_of_installed(active.installed, pin),), None
    elif request.universal:
        pairs, cuda = choose_pairs(request, host, notes, asked.read)
        python, torch = pairs[0].python, pairs[0].torch
    else:
        chosen = choose_torch(request, host, notes, asked.read, active.passed)
        python, torch = choose_python(request, chosen, host, notes), chosen.version
        cuda = choose_cuda(request, chosen, host, notes)
    return _Ground(Target(python=python, torch=torch, cuda=cuda, architectures=architectures), pairs, gpus, pin)


def _plan(asked: _Asked, ground: _Ground, proofs: Callable[[str], Sequence[Proof]]) -> BuildPlan:
    """Choose compilers, kernels and units, then put the plan together."""
    request, recipe, host, notes = asked.request, asked.recipe, asked.host, asked.notes
    target, release = ground.target, asked.release
    toolkit = choose_toolkit(target.cuda, request.toolchain, host, notes, asked.fetched)
    check_release(recipe, release, toolkit.cuda, ground.torches, target.cuda, asked.read)
    profile, selection = choose_selection(request, recipe, release, notes)
    commit, built = asked.source.commit, selection.features
    apply_advisories(recipe.name, asked.version, commit, target, toolkit.cuda, ground.torches, built, notes)
    toolchain = with_compiler(toolkit, target.architectures, host, notes)
    defines = _defines(release, toolchain.cuda, notes)
    groups = choose_groups(request, host, recipe, selection, notes)
    proven = proofs(toolchain.nvcc)
    shared = choose_shared(request, recipe, asked.version, selection, target.architectures, proven, notes)
    parts = choose_parts(request, host, recipe, selection, groups, notes)
    label = _label(asked, ground, profile, selection, toolchain.cuda)
    wheel, requires_torch = _wheel(asked, target, label), _requires(asked, ground)
    return BuildPlan(
        package=recipe.name,
        version=asked.version,
        source=asked.source,
        target=target,
        profile=profile,
        selection=selection,
        toolchain=toolchain,
        requirements=recipe.requirements,
        settings=tuple(sorted(settings_of(recipe, release, selection).items())),
        defines=defines,
        requires_torch=requires_torch,
        groups=groups,
        shared=shared,
        parts=parts,
        recipe=recipe.rules_digest(),
        pairs=ground.pairs,
        label=label,
        wheel=wheel,
        installed=ground.installed,
    )


def _label(asked: _Asked, ground: _Ground, profile: str, selection: Selection, cuda: str) -> str:
    recipe, release = asked.recipe, asked.release
    own = local_label(ground.target, profile, selection, recipe, release, ground.pairs, cuda, ground.installed)
    return chosen_label(asked.request.label, with_commit(own, asked.source))


def _wheel(asked: _Asked, target: Target, label: str) -> str:
    universal = asked.request.universal
    name = check_name(wheel_name(asked.recipe.name, asked.version, label, target, asked.release, universal=universal))
    asked.notes.decide("wheel", name, "name, version and local label, Python, platform")
    return name


def _requires(asked: _Asked, ground: _Ground) -> str:
    requires = torch_requirement(ground.target, asked.release, ground.pairs, ground.installed)
    why = _why_torch(asked.release, ground.target, ground.pairs, ground.installed)
    asked.notes.decide("requires", f"torch{requires}", why)
    return requires


def _why_torch(release: Release | None, target: Target, pairs: Sequence[Pair], installed: TorchPin | None) -> str:
    if installed and not installed.official:
        return "that PyTorch is no official release: no other build is known to be compatible with it"
    if pairs:
        return "the wheel has modules for these PyTorch minors, and each loads only with its own"
    if uses_stable_abi(release, target):
        return "upstream's build uses only PyTorch's stable ABI: later versions load the same modules"
    return "modules load only with the PyTorch minor that they were compiled for"


def _defines(release: Release | None, cuda: str, notes: Notes) -> tuple[str, ...]:
    defines: list[str] = []
    for remedy in release.remedies_for(cuda) if release else ():
        added = [f"{name}={value}" for name, value in sorted(remedy.defines.items())]
        notes.decide("definitions", ", ".join(added), remedy.why)
        defines += added
    return tuple(defines)
