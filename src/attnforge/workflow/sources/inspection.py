"""What the files of a source without a recipe say about its build. No GPU and no compiler is needed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from attnforge.errors import RequestError
from attnforge.model.plan import PlanWarning
from attnforge.model.recipe import Recipe
from attnforge.provision.archives import member_names, read_files
from attnforge.provision.metadata import build_requires, torch_bounds
from attnforge.provision.purity import compiled_before, why_pure
from attnforge.provision.trees import tree_names
from attnforge.workflow.machine import Machine
from attnforge.workflow.outside import other_builder, outside_warning
from attnforge.workflow.sources.kinds import Located

_FILES = ("pyproject.toml", "setup.py", "setup.cfg", "PKG-INFO")


@dataclass(frozen=True, slots=True)
class Inspected:
    """What is known about the build of a source.

    ``why_pure`` is how it is known that the source compiles nothing, "" where it may compile something. ``torch`` are
    its requirements on torch.
    """

    why_pure: str = ""
    warnings: tuple[PlanWarning, ...] = ()
    torch: tuple[Requirement, ...] = ()

    def about(self, torches: Collection[str]) -> tuple[PlanWarning, ...]:
        """Return the warnings, and one for each requirement on torch that a PyTorch of the target does not meet."""
        missed = ((one, [torch for torch in torches if not _meets(torch, one)]) for one in self.torch)
        return (*self.warnings, *(_unmet(one, found) for one, found in missed if found))


def inspect_source(machine: Machine, located: Located) -> Inspected:
    """Return what the files of a source say about its build; nothing for a package with a recipe.

    An archive of the index or a commit is fetched for that, and the build finds it in the cache. Raises what fetching
    raises, and RequestError for a pyproject.toml that can't be read.
    """
    if not located.recipe.is_generic:
        return Inspected()
    place = located.source.place(machine)
    if place.is_dir():
        return _of_folder(place, located.recipe)
    return _of_files(read_files(place, _FILES), member_names(place), place, located.recipe)


def _of_folder(folder: Path, recipe: Recipe) -> Inspected:
    files = {name: (folder / name).read_text("utf-8", "replace") for name in _FILES if (folder / name).is_file()}
    return _of_files(files, tree_names(folder), folder, recipe)


def _of_files(files: Mapping[str, str], names: Collection[str], place: Path, recipe: Recipe) -> Inspected:
    try:
        build_requires(files.get("pyproject.toml", ""))
    except ValueError as error:
        raise RequestError(
            f"{place}/pyproject.toml can't be read",
            why=str(error),
            hint="correct it, and build from the folder",
        ) from error
    pure = why_pure(files, names)
    if pure:
        return Inspected(pure)
    builder, there = other_builder(files.get("setup.py", ""), files.get("pyproject.toml", "")), compiled_before(names)
    said = []
    if builder:
        said.append(PlanWarning(subject="compile", message=outside_warning(builder, chosen=recipe.outside)))
    if there and not recipe.outside:
        said.append(PlanWarning(subject="source", message=_compiled_elsewhere(there)))
    return Inspected(warnings=tuple(said), torch=torch_bounds(files))


def _meets(torch: str, asked: Requirement) -> bool:
    return asked.specifier.contains(torch, prereleases=True)


def _unmet(asked: Requirement, torches: Collection[str]) -> PlanWarning:
    return PlanWarning(
        subject="torch",
        message=f"the source asks for torch{asked.specifier}, and the target has PyTorch {', '.join(torches)}: upstream"
        " does not support that",
        hint="name a supported version with --torch",
    )


def _compiled_elsewhere(names: Collection[str]) -> str:
    first, *others = names
    more = f" and {len(others)} others" if others else ""
    return (
        f"the source holds compiled code already: {first}{more}; a wheel with such code is refused, since its source is"
        " unknown, unless a recipe says `outside = true` (docs/recipes.md)"
    )
