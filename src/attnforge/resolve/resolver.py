"""The resolver: request, recipe, source and host to a plan. Pure: it reads no file and runs no program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from packaging.specifiers import SpecifierSet

from attnforge.errors import RequestError
from attnforge.knowledge.redist import CudaRelease
from attnforge.knowledge.targets import find_target
from attnforge.model.cost import Prediction
from attnforge.model.host import Host
from attnforge.model.plan import BuildPlan, Resolution, SourcePin
from attnforge.model.recipe import Recipe, Release
from attnforge.model.request import Request
from attnforge.model.target import Target
from attnforge.model.universal import Pair
from attnforge.resolve.advice import apply_advisories
from attnforge.resolve.architectures import choose_architectures, choose_gpus
from attnforge.resolve.decisions import Notes
from attnforge.resolve.estimate import Made, estimate, expected_units, priors
from attnforge.resolve.form import check_form
from attnforge.resolve.grouping import choose_groups
from attnforge.resolve.naming import (
    chosen_label,
    local_label,
    torch_requirement,
    uses_stable_abi,
    wheel_name,
    with_commit,
)
from attnforge.resolve.pairs import choose_pairs
from attnforge.resolve.pure import resolve_pure
from attnforge.resolve.selection import choose_selection, settings_of
from attnforge.resolve.spans import torches_of
from attnforge.resolve.toolchain import choose_toolkit, with_compiler
from attnforge.resolve.torch import choose_cuda, choose_python, choose_torch


def with_target(request: Request, package: str) -> Request:
    """Return the request with what its named target says filled in; what the user says himself stays."""
    if not request.target:
        return request
    named = find_target(request.target)
    meant = named.packages.get(package) if "==" not in request.package else None
    filled = {
        "python": request.python or named.python,
        "torch": request.torch or named.torch,
        "cuda": request.cuda or named.cuda,
        "gpus": request.gpus or (meant.gpus if meant else ()) or named.gpus,
        "label": request.label or named.label,
    }
    if meant and not request.source:
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
    fetched: CudaRelease | None = None,
) -> Resolution:
    """Resolve a request to a plan, with a reason for each decision.

    ``version`` and ``source`` are what the index or the folder holds; ``expect`` turns the recipe's predictions, by
    key, into this machine's (compile.cost), and ``made`` says what is left of earlier builds of a plan; both for the
    estimate alone. ``fetched`` is NVIDIA's release that the request names, where it names one.
    Raises RequestError for what can't be met, HostError where the machine lacks something.
    """
    notes = Notes()
    release = recipe.release(version)
    notes.decide("source", f"{source.kind} {source.name}", source.pinned_by)
    check_form(request, recipe, release, version)
    if release is not None and not release.compiled:
        return resolve_pure(request, recipe, release, version, source, host, notes)
    target, pairs = _target(request, recipe, release, host, notes)
    torches = torches_of(pairs) or (target.torch,)
    toolkit = choose_toolkit(target.cuda, request.toolchain, host, notes, fetched)
    check_release(recipe, release, toolkit.cuda, torches, target.cuda)
    apply_advisories(recipe.name, version, source.commit, target, toolkit.cuda, torches, notes)
    toolchain = with_compiler(toolkit, target.architectures, host, notes)
    profile, selection = choose_selection(request, recipe, release, notes)
    defines = _defines(release, toolchain.cuda, notes)
    groups = choose_groups(request, host, recipe, selection, notes)
    requires_torch = torch_requirement(target, release, pairs)
    own = with_commit(local_label(target, profile, selection, recipe, release, pairs, toolchain.cuda), source)
    label = chosen_label(request.label, own)
    name = wheel_name(recipe.name, version, label, target, release, universal=request.universal)
    notes.decide("wheel", name, "name, version and local label, Python, platform")
    notes.decide("requires", f"torch{requires_torch}", _why_torch(release, target, pairs))
    plan = BuildPlan(
        package=recipe.name,
        version=version,
        source=source,
        target=target,
        profile=profile,
        selection=selection,
        toolchain=toolchain,
        requirements=recipe.requirements,
        settings=tuple(sorted(settings_of(recipe, release, selection).items())),
        defines=defines,
        requires_torch=requires_torch,
        groups=groups,
        recipe=recipe.rules_digest(),
        pairs=pairs,
        label=label,
        wheel=name,
    )
    there = made(plan)
    expected = expected_units(plan, recipe, expect(priors(plan, recipe)), there)
    return Resolution(
        plan=plan,
        decisions=notes.decisions,
        warnings=notes.warnings,
        estimate=estimate(expected, request, host, there),
    )


def _target(
    request: Request, recipe: Recipe, release: Release | None, host: Host, notes: Notes
) -> tuple[Target, tuple[Pair, ...]]:
    """Return the target and, of a universal wheel, its pairs: the target has the first one's Python and PyTorch."""
    gpus = choose_gpus(request.gpus, host, notes)
    architectures = choose_architectures(gpus, recipe, release, notes)
    pairs: tuple[Pair, ...] = ()
    if request.universal:
        pairs, cuda = choose_pairs(request, host, notes)
        python, torch = pairs[0].python, pairs[0].torch
    else:
        chosen = choose_torch(request, host, notes)
        python, torch = choose_python(request, chosen, host, notes), chosen.version
        cuda = choose_cuda(request, chosen, host, notes)
    return Target(python=python, torch=torch, cuda=cuda, gpus=gpus, architectures=architectures), pairs


def check_release(
    recipe: Recipe, release: Release | None, cuda: str, torches: Sequence[str], torch_cuda: str = ""
) -> None:
    """Raise RequestError where the release needs another CUDA, or another PyTorch than one of these.

    ``cuda`` is the compiler's (``12.4``), ``torch_cuda`` that of PyTorch, "" for the same.
    """
    if release is None:
        return
    if release.cuda and not SpecifierSet(release.cuda).contains(cuda):
        raise _other_cuda(recipe, release, cuda, torch_cuda or cuda)
    for torch in torches:
        if release.torch and not SpecifierSet(release.torch).contains(torch):
            raise RequestError(
                f"{recipe.title} needs PyTorch {release.torch}, the target has {torch}",
                hint="--torch of another version",
            )


def _other_cuda(recipe: Recipe, release: Release, cuda: str, torch_cuda: str) -> RequestError:
    if SpecifierSet(release.cuda).contains(torch_cuda):
        return RequestError(
            f"{recipe.title} needs a compiler of CUDA {release.cuda}, the chosen one is of {cuda}",
            why=f"what upstream's build checks is nvcc, and not that PyTorch is built with CUDA {torch_cuda}",
            hint=f"set CUDA_HOME to a toolkit of CUDA {torch_cuda}, or unset it and choose --toolchain nvidia",
        )
    return RequestError(
        f"{recipe.title} needs CUDA {release.cuda}, the target has {cuda}", hint="--cuda of another version"
    )


def _why_torch(release: Release | None, target: Target, pairs: Sequence[Pair]) -> str:
    if pairs:
        return "the wheel holds modules for these PyTorch minors, and a module loads with its own alone"
    if uses_stable_abi(release, target):
        return "upstream's build uses PyTorch's stable ABI alone: later versions load the same modules"
    return "modules load with the PyTorch minor that they were compiled for and no other"


def _defines(release: Release | None, cuda: str, notes: Notes) -> tuple[str, ...]:
    defines: list[str] = []
    for remedy in release.remedies_for(cuda) if release else ():
        added = [f"{name}={value}" for name, value in sorted(remedy.defines.items())]
        notes.decide("definitions", ", ".join(added), remedy.why)
        defines += added
    return tuple(defines)
