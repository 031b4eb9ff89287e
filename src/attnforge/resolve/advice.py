"""Holds a plan against the combinations that are known to be bad."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from packaging.specifiers import SpecifierSet

from attnforge.errors import RequestError
from attnforge.knowledge.advisories import Advisory, advisories
from attnforge.model.plan import BuildPlan
from attnforge.model.target import Target
from attnforge.resolve.decisions import Notes
from attnforge.resolve.spans import torches_of
from attnforge.resolve.toolchain import another_compiler


def apply_advisories(
    package: str,
    version: str,
    commit: str,
    target: Target,
    cuda: str,
    torches: Sequence[str],
    features: Collection[str],
    notes: Notes,
) -> None:
    """Warn of what is known to be bad with any of these PyTorch versions; RequestError for what must not be built.

    ``cuda`` is the CUDA of the compiler (``12.4``), which may be another minor than PyTorch's, ``features`` what is
    built of the recipe's. What only the source shows is left to ``check_source``.
    """
    for advisory in _concerning(package, version, commit, target, cuda, torches, features):
        if advisory.file:
            continue
        advisory = _for_compiler(advisory, cuda, target.cuda)
        _refuse(advisory, package, version)
        notes.warn(advisory.id, advisory.message, advisory.hint, advisory.link)


def _for_compiler(advisory: Advisory, cuda: str, torch_cuda: str) -> Advisory:
    """Return an advisory with another hint where only the compiler is in the way."""
    if not advisory.cuda:
        return advisory
    concerned = SpecifierSet(advisory.cuda)
    hint = another_compiler(cuda, torch_cuda, lambda other: not concerned.contains(other))
    return advisory.model_copy(update={"hint": hint}) if hint else advisory


def check_source(plan: BuildPlan, read: Callable[[str], str]) -> tuple[str, ...]:
    """Return what is to be warned of in a source that is laid out; RequestError for one that must not be built.

    ``read`` returns the text of a file by its path in the source, "" where there is none.
    """
    torches = torches_of(plan.pairs) or (plan.target.torch,)
    cuda = plan.toolchain.cuda
    features = plan.selection.features
    found = _concerning(plan.package, plan.version, plan.source.commit, plan.target, cuda, torches, features)
    shown = [advisory for advisory in found if advisory.found_in(read)]
    for advisory in shown:
        _refuse(advisory, plan.package, plan.version)
    return tuple(f"{advisory.message}; {advisory.hint}" for advisory in shown)


def _concerning(
    package: str,
    version: str,
    commit: str,
    target: Target,
    cuda: str,
    torches: Sequence[str],
    features: Collection[str],
) -> Iterator[Advisory]:
    gpus = target.capabilities
    for advisory in advisories():
        if any(advisory.concerns(package, version, one, cuda, gpus, commit, features) for one in torches):
            yield advisory


def _refuse(advisory: Advisory, package: str, version: str) -> None:
    if advisory.severity == "error":
        raise RequestError(
            f"{package} {version} can't be built for this target: {advisory.message}",
            hint=advisory.hint,
            link=advisory.link,
        )
