"""Whether a package's release can be built for a target, and the nearest target that it can be built for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from packaging.specifiers import SpecifierSet

from attnforge.errors import RequestError
from attnforge.knowledge.torch import TorchRelease, known_torch, torch_releases
from attnforge.model.recipe import Recipe
from attnforge.model.release import Release
from attnforge.model.universal import numbers
from attnforge.resolve.decisions import Notes
from attnforge.resolve.toolchain import another_compiler


def check_release(
    recipe: Recipe,
    release: Release | None,
    cuda: str,
    torches: Sequence[str],
    torch_cuda: str = "",
    read: Iterable[TorchRelease] = (),
) -> None:
    """Raise RequestError where the release needs another CUDA, or another PyTorch than one of these.

    ``cuda`` is the compiler's (``12.4``), ``torch_cuda`` that of PyTorch, "" for the same. ``read`` are releases that
    the table of known ones lacks. The error names the nearest target that can be built, or another compiler where only
    that is needed.
    """
    if release is None:
        return
    for torch in torches:
        if not _allows(release.torch, torch):
            raise RequestError(
                f"{recipe.title} needs PyTorch {release.torch}, the target has {torch}",
                hint=_listed(release, torch, cuda) or "no PyTorch that attnforge knows is one of these",
                link=recipe.homepage,
            )
    if not _allows(release.cuda, cuda):
        another = another_compiler(cuda, torch_cuda, lambda other: _allows(release.cuda, other)) if torch_cuda else ""
        if another:
            raise RequestError(
                f"{recipe.title} needs a compiler of CUDA {release.cuda}, the chosen one is of {cuda}",
                why=f"upstream's build checks nvcc, and not that PyTorch is built with CUDA {torch_cuda}",
                hint=another,
                link=recipe.homepage,
            )
        cuda = torch_cuda or cuda
        raise RequestError(
            f"{recipe.title} needs CUDA {release.cuda}, the target has {cuda}",
            why=_built_with(torches[0], release),
            hint=_listed(release, torches[0], cuda) or "no PyTorch that attnforge knows is built with one of these",
            link=recipe.homepage,
        )


def _built_with(torch: str, release: Release) -> str:
    """Return which CUDA versions a PyTorch is built with, "" where that is not known."""
    built = known_torch(torch)
    if built is None:
        return ""
    suffice = any(_allows(release.cuda, other) for other in built.cuda)
    known = f"PyTorch {built.version} is built with {', '.join(built.cuda)}"
    return known if suffice else f"{known}, none of which is enough"


def warn_uncovered(recipe: Recipe, release: Release | None, version: str, notes: Notes) -> None:
    """Warn of a version that no release of the package's recipe covers."""
    if release is None and recipe.releases:
        notes.warn(
            "recipe",
            f"the recipe of {recipe.name} does not cover {version}: its own setup decides what is built, and how "
            "long that takes is unknown",
            hint=f"it covers {'; '.join(one.versions for one in recipe.releases)}",
        )


def _listed(release: Release, torch: str, cuda: str) -> str:
    """Return the options for the nearest target that the release can be built for, "" where there is none."""
    nearest = min(_targets(release), key=lambda found: _distance(found, torch, cuda), default=None)
    return f"--torch {nearest[0].version} --cuda {nearest[1]}" if nearest else ""


def _targets(release: Release) -> Iterator[tuple[TorchRelease, str]]:
    newest = {_minor(torch.version): torch for torch in torch_releases()}  # the last patch of each minor
    for torch in newest.values():
        if _allows(release.torch, torch.version):
            yield from ((torch, cuda) for cuda in torch.cuda if _allows(release.cuda, cuda))


def _distance(found: tuple[TorchRelease, str], torch: str, cuda: str) -> tuple[int, ...]:
    """Return how far a target is from the one asked for: first by PyTorch, where a later one is nearer, then by CUDA.

    PyTorch versions are compared by their places in the list of minors, as minors of two majors can't be subtracted.
    """
    minors = {_minor(release.version) for release in torch_releases()} | {_minor(torch)}
    order = sorted(minors, key=numbers)
    between = order.index(_minor(found[0].version)) - order.index(_minor(torch))
    major, minor = (abs(one - other) for one, other in zip(numbers(found[1]), numbers(cuda), strict=False))
    return abs(between), between < 0, major, minor


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _allows(specifier: str, version: str) -> bool:
    return not specifier or SpecifierSet(specifier, prereleases=True).contains(version)
