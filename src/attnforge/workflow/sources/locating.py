"""From a request to a package that was found: which recipe, which version, which source."""

from __future__ import annotations

from dataclasses import replace

from packaging.utils import is_normalized_name

from attnforge.errors import RequestError
from attnforge.model.plan import UNSTATED
from attnforge.model.recipe import Recipe
from attnforge.model.request import Request
from attnforge.model.versions import as_version, shortened
from attnforge.provision.giturl import is_git
from attnforge.recipes.catalogue import find_recipe
from attnforge.resolve.form import asked_pythons
from attnforge.workflow.machine import Machine
from attnforge.workflow.sources.git import git_wish, locate_git, sourced_wish
from attnforge.workflow.sources.index import locate_carried, locate_sdist
from attnforge.workflow.sources.kinds import Located
from attnforge.workflow.sources.local import locate_local
from attnforge.workflow.sources.words import expanded, is_path, name_and_version, own_recipe


def named_in(request: Request) -> str:
    """Return the name that a request has for the package, "" for a path or an address without one.

    RequestError for a package that is neither a name, a path nor an address.
    """
    wish = git_wish(request.package, request.source)
    if wish is not None:
        return wish.name
    return "" if is_path(request.package) else name_and_version(request.package)[0]


def locate(machine: Machine, request: Request) -> Located:
    """Find the package: a folder, an archive, a commit, a version that the recipe pins, or one of the package index.

    An index or a git server is asked only where the recipe pins nothing. RequestError where there is no such package,
    where two sources are named, and for a source that states a name or version that can't be one. HostError where an
    index or a server can't be reached.
    """
    found = _checked_names(_find(machine, request))
    return replace(found, recipe=found.recipe.at(found.version))


def _find(machine: Machine, request: Request) -> Located:
    wish = git_wish(request.package, request.source)
    if wish is not None:
        return locate_git(machine, wish)
    recipe, version = own_recipe(request.package)
    if recipe is None and is_path(request.package):
        return _at_path(request)
    if recipe is None:
        name, version = name_and_version(request.package)
        recipe = find_recipe(name)
    return _of_recipe(machine, request, recipe, version)


def _at_path(request: Request) -> Located:
    if request.source not in ("", request.package):
        raise RequestError(
            f"{request.package} is a source already, and --source names another",
            hint=f"attnforge build NAME==VERSION --source {request.source}",
        )
    return locate_local(expanded(request.package))


def _of_recipe(machine: Machine, request: Request, recipe: Recipe, version: str) -> Located:
    kinds = recipe.at(version or recipe.default_version or UNSTATED).sources
    source = request.source or kinds[0]
    if source == "git" or is_git(source):
        return locate_git(machine, sourced_wish(recipe, version, source))
    _check_kind(source, recipe.name, kinds)
    if source == "carrier":
        return locate_carried(recipe, version or recipe.default_version)
    if source == "sdist":
        pythons = asked_pythons(request) or (machine.host.python,)
        return locate_sdist(recipe, version, pythons, machine.settings)
    return locate_local(expanded(source), recipe, version)


def _check_kind(source: str, name: str, kinds: tuple[str, ...]) -> None:
    """Refuse a kind of source that the recipe does not name: another package may have that name there."""
    if source in ("sdist", "carrier") and source not in kinds:
        raise RequestError(
            f"{name} has no source of the kind {source}",
            why=f"its recipe names {', '.join(kinds)}",
            hint=f"--source {kinds[0]}",
        )


def _checked_names(located: Located) -> Located:
    """Return a package that was found; RequestError where its source states a name or version that can't be one.

    Both become part of file names.
    """
    recipe, version = located.recipe, as_version(located.version)
    source = f"{located.pin.kind} {located.pin.name}"
    if not is_normalized_name(recipe.name):
        raise RequestError(
            f"{shortened(recipe.name)!r} can't be the name of a package",
            why=f"the {source} states it; letters, digits, and dots, dashes and underscores between them make a name",
            hint="correct it in the source, or name the package: attnforge build NAME==VERSION --source PATH",
        )
    if version is None:
        raise RequestError(
            f"{shortened(located.version)!r} is no version",
            why=f"the {source} states it, and PEP 440 does not allow it",
            hint=f"name the version: attnforge build {recipe.name}==VERSION --source PATH",
        )
    return located
