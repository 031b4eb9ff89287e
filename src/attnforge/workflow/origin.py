"""The recipe and the source that a wheel was built from. An extension compiles host code by the same."""

from __future__ import annotations

from pathlib import Path

from attnforge.errors import RequestError
from attnforge.model.plan import BuildPlan, SourcePin
from attnforge.model.recipe import Recipe
from attnforge.model.release import Release
from attnforge.provision.giturl import GitAddress, parse_address
from attnforge.provision.source import LocalSource, open_local
from attnforge.recipes.catalogue import find_recipe
from attnforge.recipes.own import read_recipe
from attnforge.resolve.selection import settings_of
from attnforge.workflow.sources.kinds import Carried, Commit, Located, Sdist, local_source


def held_recipe(plan: BuildPlan, recipe_file: str) -> tuple[Recipe, Release | None]:
    """Return the recipe of a wheel's plan and its release. RequestError where the plan differs from these.

    The installed recipe decides what is installed, run and set in the environment, not a file from elsewhere.
    """
    found = read_recipe(Path(recipe_file).expanduser()) if recipe_file else find_recipe(plan.package)
    recipe = found.at(plan.version)
    release = recipe.release(plan.version)
    # A feature that the recipe does not have can't be looked up. Then its rules differ, too.
    without = tuple(name for name in plan.selection.without if name in recipe.features)
    selection = plan.selection.model_copy(update={"without": without})
    settings = tuple(sorted(settings_of(recipe, release, selection).items()))
    known = (recipe.name, recipe.rules_digest(), recipe.requirements, settings)
    if known != (plan.package, plan.recipe, plan.requirements, plan.settings) or selection != plan.selection:
        raise RequestError(
            f"the installed recipe for {plan.package} is not the one that the wheel was built with",
            why="its host code and its kernels would be built by different rules",
            hint="the attnforge that built it (provenance.json inside names it), or --recipe FILE for one of your own",
        )
    return recipe, release


def check_source_pin(plan: BuildPlan, recipe: Recipe, release: Release | None, source: str) -> None:
    """Check the source that a wheel names against the recipe, since its setup.py will be run. RequestError."""
    pin = plan.source
    if pin.kind == "git":
        known = bool(source) or not pin.url or (recipe.git is not None and pin.url == recipe.git.url)
    elif pin.carrier is not None:
        known = release is not None and release.carriers.get(plan.version) == pin.carrier
    else:
        pinned = release.sha256.get(plan.version) if release else None
        known = pin.kind != "sdist" or pinned in (None, pin.sha256)
    if not known:
        raise RequestError(
            f"the wheel says that it comes from another source than the recipe for {plan.package} names",
            why=f"it names {pin.url or pin.name}, {pin.pinned_by[:30]}; its setup.py would be run",
            hint="if you trust it: --source git+URL" if pin.kind == "git" else "build the wheel again",
        )


def held_source(plan: BuildPlan, recipe: Recipe, source: str) -> Located:
    """Return the source of a wheel's plan; ``source`` says where it is, "" for where the plan says.

    RequestError where that is another source, or where the plan does not say where it is.
    """
    pin = plan.source
    if pin.kind == "git":
        return Located(recipe, plan.version, Commit(pin, _address(pin, source)))
    if pin.kind == "sdist":
        own = Sdist(pin, plan.package, plan.version)
        return Located(recipe, plan.version, Carried(pin, pin.carrier) if pin.carrier else own)
    return Located(recipe, plan.version, local_source(_local(pin, source), pin))


def _address(pin: SourcePin, source: str) -> GitAddress:
    """Return where a commit is fetched from."""
    if not (source or pin.url):
        raise RequestError(
            f"the wheel was built from a git repository {pin.name} on its builder's machine",
            why="host code is compiled from the very same source",
            hint=f"--source git+file:///FOLDER of a clone that has the commit {pin.commit}",
        )
    return parse_address(source or f"git+{pin.url}@{pin.commit}")


def _local(pin: SourcePin, source: str) -> LocalSource:
    """Return the user's folder or archive, which has to be the one that the wheel was built from."""
    if not source:
        raise RequestError(
            f"the wheel was built from the {pin.kind} {pin.name}, which only you have",
            why="host code is compiled from the very same source",
            hint=f"--source PATH of {pin.name}",
        )
    local = open_local(Path(source).expanduser())
    if (local.kind, local.sha256) != (pin.kind, pin.sha256):
        raise RequestError(
            f"{source} is not the source that the wheel was built from",
            why=f"its sha256 is {local.sha256[:16]}…, the wheel's {pin.sha256[:16]}…",
            hint=f"--source PATH of the same {pin.name}",
        )
    return local
