"""Folders and archives of the user's as sources."""

from __future__ import annotations

from pathlib import Path

from attnforge.errors import RequestError
from attnforge.model.plan import UNSTATED, PlanWarning
from attnforge.model.recipe import Recipe
from attnforge.provision.source import empty_submodules, open_local, own_version
from attnforge.recipes.catalogue import find_recipe
from attnforge.workflow.sources.kinds import Located, local_source


def locate_local(path: Path, recipe: Recipe | None = None, version: str = "") -> Located:
    """Find the package in a folder or archive; its files state name and version where the request does not.

    RequestError for a path that is neither, where no version is known, and for a clone without its submodules.
    """
    local = open_local(path)
    recipe = recipe or find_recipe(local.name or local.path.name.split(".")[0])
    known = version or local.version or own_version(local.path, recipe.import_name)
    if not known and recipe.releases:
        raise RequestError(
            f"{local.path} does not state which version of {recipe.name} it is",
            why="which kernels it has depends on the version",
            hint=f"attnforge build {recipe.name}==VERSION --source '{local.path}'",
        )
    return Located(recipe, known or UNSTATED, local_source(local), warnings=_submodules(local.path, recipe))


def _submodules(folder: Path, recipe: Recipe) -> tuple[PlanWarning, ...]:
    """Warn of a clone's empty submodules; RequestError where the recipe says that the build needs them."""
    needed = recipe.git.submodules if recipe.git else ()
    empty = [path for path in empty_submodules(folder) if path in needed or not needed] if folder.is_dir() else []
    if not empty:
        return ()
    what, hint = f"submodule {empty[0]} of {folder} is empty", f"git -C '{folder}' submodule update --init {empty[0]}"
    if needed:
        raise RequestError(what, why=f"the build of {recipe.name} needs it", hint=hint)
    return (PlanWarning(subject="source", message=what, hint=hint),)
