"""What a user writes for a package: a name, NAME==VERSION, the path of a source, or the path of a recipe."""

from __future__ import annotations

from pathlib import Path

from attnforge.errors import RequestError
from attnforge.model.recipe import Recipe
from attnforge.model.versions import as_requirement, as_version, shortened
from attnforge.recipes.own import RECIPE_SUFFIX, read_recipe

_ARCHIVES = (".gz", ".tgz", ".bz2", ".xz", ".tar", ".zip")


def is_path(text: str) -> bool:
    """Say whether a word is a path: it has a separator, is an archive that exists, or is a recipe."""
    if text.partition("==")[0].endswith(RECIPE_SUFFIX):
        return True
    return "/" in text or text in (".", "..") or (text.endswith(_ARCHIVES) and Path(text).exists())


def expanded(text: str) -> Path:
    """Return a path whose ~ is the home folder; ~USER stays where there is no such user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def own_recipe(package: str) -> tuple[Recipe | None, str]:
    """Return the recipe that a path names, None for any other word, and the version after ``==``.

    RequestError where the file is missing or is no recipe: ``recipes.own.read_recipe``.
    """
    path, _, version = package.partition("==")
    if not path.endswith(RECIPE_SUFFIX):
        return None, ""
    recipe = read_recipe(expanded(path))
    return recipe, _exact(version, path) if version else ""


def name_and_version(text: str) -> tuple[str, str]:
    """Return name and version of ``NAME==VERSION``, the version "" where there is none; RequestError for other text."""
    requirement = as_requirement(text)
    if requirement is None:
        raise RequestError(f"{shortened(text)!r} is no package", hint="write NAME, NAME==VERSION or ./FOLDER")
    exact = [part.version for part in requirement.specifier if part.operator == "=="]
    if requirement.extras or requirement.marker:
        what = f"{shortened(text)!r} names more than a package and its version"
        raise RequestError(what, hint=f"write {requirement.name} or {requirement.name}==VERSION")
    if len(requirement.specifier) != len(exact) or len(exact) > 1:
        raise RequestError(f"{shortened(text)!r} is not one version", hint=f"write {requirement.name}==VERSION")
    return requirement.name, _exact(exact[0], requirement.name) if exact else ""


def _exact(text: str, name: str) -> str:
    """Return a version as it is written; RequestError for text that is none, such as 2.8.*."""
    if as_version(text) is None:
        raise RequestError(f"{shortened(text)!r} is no version", hint=f"write {name}==VERSION")
    return text
