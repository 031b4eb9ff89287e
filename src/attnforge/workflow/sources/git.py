"""From a request for a git source to a commit, a recipe and a version."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.utils import canonicalize_name

from attnforge.errors import RequestError
from attnforge.model.plan import UNSTATED, Decision, PlanWarning, SourcePin
from attnforge.model.recipe import Recipe
from attnforge.provision.git import find_git
from attnforge.provision.gitrefs import Resolved, is_commit, resolve_ref
from attnforge.provision.giturl import GitAddress, check_ref, is_git, parse_address
from attnforge.provision.source import own_version, stated
from attnforge.recipes.catalogue import find_recipe, recipes
from attnforge.workflow.machine import Machine
from attnforge.workflow.sources.kinds import Commit, Located

_AT = re.compile(r"(?P<name>[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)\s*@\s*(?P<ref>\S+)")


@dataclass(frozen=True, slots=True)
class GitWish:
    """What a request asks of git. ``name`` and ``version`` are "" where the repository's files state them."""

    address: GitAddress
    name: str = ""
    version: str = ""
    recipe: Recipe | None = None


def at_reference(package: str) -> tuple[str, str] | None:
    """Return name and reference of ``NAME@REF`` or ``NAME @ git+URL``, None for anything else."""
    match = _AT.fullmatch(package)
    return (match["name"], match["ref"]) if match and not Path(package).exists() else None


def git_wish(package: str, source: str) -> GitWish | None:
    """Return what the word for a package asks of git: an address, or ``NAME@…``. None for any other word.

    RequestError for text that is no safe address, and where ``--source`` names another source.
    """
    named = at_reference(package)
    if not is_git(package) and named is None:
        return None
    if source not in ("", "git", package):
        raise RequestError(
            f"{package} is a source already, and --source names another",
            hint=f"attnforge build NAME==VERSION --source {source}",
        )
    if named is None:
        return GitWish(address := parse_address(package), address.name)
    name, ref = named
    recipe = find_recipe(name)
    if is_git(ref):
        return GitWish(_in_its_folder(parse_address(ref), recipe), name)
    return GitWish(repository(recipe, check_ref(ref)), name, recipe=recipe)


def sourced_wish(recipe: Recipe, version: str, source: str) -> GitWish:
    """Return what ``NAME==VERSION --source git…`` asks for: an address, or ``git`` for the recipe's own repository."""
    if is_git(source):
        return GitWish(_in_its_folder(parse_address(source), recipe), recipe.name, version, recipe)
    wanted = version or recipe.default_version
    if not wanted:
        raise RequestError(
            f"which version of {recipe.name}?", hint=f"write {recipe.name}==VERSION or {recipe.name}@TAG"
        )
    address = repository(recipe, "")
    recorded = recorded_commit(recipe, wanted)
    tag = recipe.git.tag.replace("{version}", wanted) if recipe.git else ""
    return GitWish(replace(address, ref=recorded or tag), recipe.name, wanted, recipe)


def _in_its_folder(address: GitAddress, recipe: Recipe) -> GitAddress:
    """Return an address with the recipe's folder where it names none: a copy of the repository has that folder, too.

    FlashAttention 3 is in hopper/ of FlashAttention's, whose top is FlashAttention 2. ``#subdirectory=.`` is the top.
    """
    folder = recipe.git.subdirectory if recipe.git else ""
    return replace(address, subdirectory=address.subdirectory or folder)


def repository(recipe: Recipe, ref: str) -> GitAddress:
    """Return the recipe's repository at a ref; RequestError where the recipe names none."""
    if recipe.git is None:
        raise RequestError(
            f"no git repository of {recipe.name} is known",
            why="its recipe names none" if recipe.releases else "it has no recipe",
            hint=f"give its address: attnforge build '{recipe.name} @ git+https://HOST/OWNER/REPOSITORY@TAG'",
        )
    return replace(parse_address(f"git+{recipe.git.url}"), ref=ref, subdirectory=recipe.git.subdirectory)


def recorded_commit(recipe: Recipe, version: str) -> str:
    """Return the commit that the recipe records for a version, or ""."""
    return next((release.commits[version] for release in recipe.releases if version in release.commits), "")


def locate_git(machine: Machine, wish: GitWish) -> Located:
    """Find the commit, the recipe and the version of a git source.

    Nothing is fetched or asked where the request or the recipe names commit and version. A tag or branch is looked up.
    The commit is fetched into the cache where only its files state the name or the version. RequestError where the
    commit, its name or its version can't be found; HostError where the server can't be reached.
    """
    found = _resolved(machine, wish.address)
    recipe = wish.recipe or _known(wish)
    source = Commit(_pin(wish.address, found.commit, _submodules(recipe)), wish.address)
    version = wish.version or (_recorded_version(recipe, found.commit) if recipe else "")
    if recipe is None or not version:
        folder = source.place(machine)
        name, own = stated(folder)
        recipe = recipe or find_recipe(name or wish.address.title)
        version = version or own or own_version(folder, recipe.import_name)
    if not version and recipe.releases:
        raise RequestError(
            f"{wish.address} does not state which version of {recipe.name} it is",
            why="which kernels it has depends on the version",
            hint=f"attnforge build {recipe.name}==VERSION --source '{wish.address}{_fragment(wish.address)}'",
        )
    decisions = (_decision(wish.address, found),)
    warnings = tuple(_warnings(wish.address, found, recipe, version))
    return Located(recipe, version or UNSTATED, source, decisions, warnings)


def _fragment(address: GitAddress) -> str:
    return f"#subdirectory={address.subdirectory}" if address.subdirectory else ""


def _known(wish: GitWish) -> Recipe | None:
    """Return the recipe of the package that is named, else that of the repository."""
    if wish.name:
        return find_recipe(wish.name)
    for recipe in recipes().values():
        if (
            recipe.git
            and _same(recipe.git.url, wish.address.url)
            and recipe.git.subdirectory == wish.address.subdirectory
        ):
            return recipe
    return None


def _same(one: str, other: str) -> bool:
    return one.lower().removesuffix("/").removesuffix(".git") == other.lower().removesuffix("/").removesuffix(".git")


def _submodules(recipe: Recipe | None) -> tuple[str, ...]:
    return recipe.git.submodules if recipe and recipe.git else ()


def _recorded_version(recipe: Recipe, commit: str) -> str:
    recorded = (pair for release in recipe.releases for pair in release.commits.items())
    return next((version for version, known in recorded if known == commit), "")


def _resolved(machine: Machine, address: GitAddress) -> Resolved:
    if is_commit(address.ref):
        return Resolved(address.ref, "commit", address.ref)
    return resolve_ref(find_git(machine.environ, machine.runner), machine.folders, address)


def _pin(address: GitAddress, commit: str, submodules: tuple[str, ...]) -> SourcePin:
    url = "" if address.is_local else address.url
    return SourcePin(
        kind="git",
        name=address.title,
        url=url,
        commit=commit,
        submodules=submodules,
        subdirectory=address.subdirectory,
    )


def _decision(address: GitAddress, found: Resolved) -> Decision:
    where = address.url if not address.is_local else address.title
    reasons = {
        "tag": f"the tag {found.ref} of {where} is this commit",
        "branch": f"the branch {found.ref} of {where} is at this commit now; name the commit to build the same again",
        "head": f"HEAD of {where} is at this commit now; name the commit to build the same again",
        "commit": f"a commit id names its content wherever it is kept; from {where}",
    }
    return Decision(subject="commit", choice=found.commit, reason=reasons[found.kind])


def _warnings(address: GitAddress, found: Resolved, recipe: Recipe, version: str) -> list[PlanWarning]:
    warnings = []
    # The recipe records the commit of one tag. Another tag of that version may be at another commit.
    own_tag = recipe.git.tag.replace("{version}", version) if recipe.git else ""
    recorded = recorded_commit(recipe, version) if found.kind == "tag" and found.ref == own_tag else ""
    own = recipe.git is not None and _same(recipe.git.url, address.url)
    for before, who in ((found.before, "it was when it was last asked for here"), (recorded, "the recipe records")):
        if before and before != found.commit and (own or who.startswith("it")):
            message = f"the tag {found.ref} moved: it is commit {found.commit[:12]} now, {before[:12]} is what {who}"
            former = f"git+{address.url}@{before}{_fragment(address)}"
            hint = f"to build the earlier commit: {canonicalize_name(recipe.name)} @ {former}"
            warnings.append(PlanWarning(subject="source", message=message, hint=hint))
    return warnings
