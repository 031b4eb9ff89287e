"""The pairs of PyTorch and Python that a universal wheel is for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attnforge.errors import RequestError
from attnforge.knowledge.torch import TorchRelease, torch_releases
from attnforge.model.host import Host
from attnforge.model.plan import BuildPlan
from attnforge.model.recipe import Recipe
from attnforge.model.release import Release
from attnforge.model.request import Request
from attnforge.model.universal import Pair, sorted_pairs
from attnforge.resolve.decisions import Notes
from attnforge.resolve.naming import local_label, torch_requirement, wheel_name, with_commit
from attnforge.resolve.sharing import check_cuda, choose_shared_cuda
from attnforge.resolve.spans import described
from attnforge.resolve.torch import choose_torch, default_python, nearest, tell_read
from attnforge.resolve.versions import expand_pythons, expand_torches


def choose_pairs(
    request: Request, host: Host, notes: Notes, read: Iterable[TorchRelease] = ()
) -> tuple[tuple[Pair, ...], str]:
    """Return the pairs of a universal request, in order, and the one CUDA of them all.

    What it does not say, PyTorch or Python, is the single one that any other build chooses. Raises RequestError as
    ``pairs_for`` does, and where the PyTorch versions share no CUDA that can be compiled here.
    """
    releases = _asked_torches(request.torch, notes, read) if request.torch else (choose_torch(request, host, notes),)
    if request.python:
        pythons = _asked_pythons(request.python, notes)
    else:
        pythons = (default_python(_common_pythons(releases), host, notes),)
    pairs = _combined(releases, pythons, notes)
    return pairs, choose_shared_cuda(request, releases, host, notes)


def pairs_for(
    torches: str, pythons: str, cuda: str, notes: Notes, read: Iterable[TorchRelease] = ()
) -> tuple[Pair, ...]:
    """Return, in order, the pairs of these lists or ranges (``2.11-2.13``; ``3.10,3.12``) for a CUDA that is settled.

    A pair that PyTorch has no build for is left out, with a reason and a warning. Raises RequestError for what can't
    be read or is not known, for two patches of one PyTorch minor, for a PyTorch without builds with that CUDA, and for
    a PyTorch or Python that ends up in no pair.
    """
    releases, wanted = _asked_torches(torches, notes, read), _asked_pythons(pythons, notes)
    check_cuda(cuda, releases)
    return _combined(releases, wanted, notes)


def with_pairs(plan: BuildPlan, pairs: Sequence[Pair], recipe: Recipe, release: Release | None) -> BuildPlan:
    """Return a universal plan with other pairs, at least one: target, requirement, label and file name follow.

    A label that the user chose stays: one that is not what the plan's own would be.
    """
    ordered = sorted_pairs(pairs)
    chosen = plan.label if plan.label != own_label(plan, recipe, release) else None
    target = plan.target.model_copy(update={"python": ordered[0].python, "torch": ordered[0].torch})
    changed = plan.model_copy(update={"target": target, "pairs": ordered})
    label = own_label(changed, recipe, release) if chosen is None else chosen
    named = {
        "requires_torch": torch_requirement(target, release, ordered),
        "label": label,
        "wheel": wheel_name(plan.package, plan.version, label, target, release, universal=True),
    }
    return changed.model_copy(update=named)


def own_label(plan: BuildPlan, recipe: Recipe, release: Release | None) -> str:
    """Return the label that a plan has where the user chooses none."""
    compiler = plan.toolchain.cuda
    label = local_label(plan.target, plan.profile, plan.selection, recipe, release, plan.pairs, compiler)
    return with_commit(label, plan.source)


# --- which go together


def _asked_torches(text: str, notes: Notes, read: Iterable[TorchRelease]) -> tuple[TorchRelease, ...]:
    releases = expand_torches(text, read)
    notes.decide("torch", ", ".join(release.version for release in releases), "asked for")
    tell_read(releases, notes)
    return releases


def _asked_pythons(text: str, notes: Notes) -> tuple[str, ...]:
    pythons = expand_pythons(text)
    notes.decide("python", ", ".join(pythons), "asked for")
    return pythons


def _common_pythons(releases: Sequence[TorchRelease]) -> tuple[str, ...]:
    """Return the Pythons that each release is built for, else, where there are none, those of the first."""
    first = releases[0].pythons
    common = tuple(one for one in first if all(one in release.pythons for release in releases))
    return common or first


def _combined(releases: Sequence[TorchRelease], pythons: Sequence[str], notes: Notes) -> tuple[Pair, ...]:
    """Return each PyTorch with each Python that it is built for; RequestError for one of either that has no other."""
    _check_each_has_a_pair(releases, pythons)
    pairs = sorted_pairs(
        Pair(python=python, torch=release.version)
        for release in releases
        for python in pythons
        if python in release.pythons
    )
    rejected = []
    for release in releases:
        lacking = [python for python in pythons if python not in release.pythons]
        reason = f"PyTorch {release.version} has no build for Python {', '.join(lacking)}"
        rejected += [(str(Pair(python=python, torch=release.version)), reason) for python in lacking]
        if lacking:
            notes.warn("pairs", f"{reason}: the wheel is not for {'that' if len(lacking) == 1 else 'those'}")
    notes.decide("pairs", described(pairs), "each PyTorch with each Python that it has a build for", rejected)
    return pairs


def _check_each_has_a_pair(releases: Sequence[TorchRelease], pythons: Sequence[str]) -> None:
    for release in releases:
        if not set(release.pythons) & set(pythons):
            raise RequestError(
                f"PyTorch {release.version} has no build for Python {', '.join(pythons)}",
                why=f"it is built for {', '.join(release.pythons)}",
                hint=f"add --python {nearest(pythons[-1], release.pythons)}, or leave that PyTorch out",
            )
    for python in pythons:
        if not any(python in release.pythons for release in releases):
            having = [release.version for release in torch_releases() if python in release.pythons]
            raise RequestError(
                f"none of PyTorch {', '.join(release.version for release in releases)} has a build for Python {python}",
                why="; ".join(f"{release.version} is built for {', '.join(release.pythons)}" for release in releases),
                hint=f"leave Python {python} out, or add --torch {having[-1]}",
            )
