"""From a request to a plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, is_normalized_name
from packaging.version import Version

from attnforge.compile.run.cost import CostModel
from attnforge.errors import RequestError
from attnforge.knowledge.targets import find_target
from attnforge.model.host import Active, Installed
from attnforge.model.plan import UNSTATED, BuildPlan, Decision, Estimate, PlanWarning, Resolution, SourcePin
from attnforge.model.recipe import Recipe
from attnforge.model.request import Request
from attnforge.model.versions import as_specifier, as_version, shortened
from attnforge.package.wheel import torches_of
from attnforge.provision.giturl import GitAddress, is_git
from attnforge.provision.indexes import Offered, SdistRelease, offered
from attnforge.provision.source import LocalSource, empty_submodules, open_local, own_version
from attnforge.recipes.catalogue import find_recipe, suggestions
from attnforge.recipes.own import RECIPE_SUFFIX, read_recipe
from attnforge.recipes.proofs import find_proofs
from attnforge.resolve.form import asked_pythons
from attnforge.resolve.resolver import resolve, with_target
from attnforge.workflow.before import made_before
from attnforge.workflow.early import check_early, check_place, check_versions
from attnforge.workflow.fetching import fetches_of
from attnforge.workflow.fromgit import GitWish, git_wish, locate_git, recorded_commit, sourced_wish
from attnforge.workflow.installed import default_environment, named_environment, of_environment
from attnforge.workflow.machine import Machine
from attnforge.workflow.purity import Inspected, inspect_source
from attnforge.workflow.redist import asked_release
from attnforge.workflow.torchindex import read_torches
from attnforge.workflow.uptodate import finished_wheel

_ARCHIVES = (".gz", ".tgz", ".bz2", ".xz", ".tar", ".zip")


@dataclass(frozen=True, slots=True)
class Located:
    """A package found: what is known of it, which version, its source by content, and where, if it lies here.

    ``address`` is that of a git source, with the user's credentials. ``decisions`` and ``warnings`` are what finding it
    has to tell.
    """

    recipe: Recipe
    version: str
    source: SourcePin
    path: Path | None = None
    address: GitAddress | None = None
    decisions: tuple[Decision, ...] = ()
    warnings: tuple[PlanWarning, ...] = ()


@dataclass(frozen=True, slots=True)
class Planned:
    """A resolution, and what carrying it out needs besides.

    ``installed`` is the environment whose PyTorch is compiled against, None where one is made for the build.
    """

    request: Request
    located: Located
    resolution: Resolution
    installed: Installed | None = None

    @property
    def plan(self) -> BuildPlan:
        """The plan."""
        return self.resolution.plan


def plan(machine: Machine, request: Request) -> Planned:
    """Resolve a request on this machine. Reads the package index or a git server only where the recipe pins nothing."""
    check_place(request.package.partition("==")[0])
    check_place(request.source)
    # A path or a tag says itself which version it is; a name may have one in the named target.
    wish = git_wish(request.package, request.source)
    name = wish.name if wish else "" if is_path(request.package) else _split(request.package)[0]
    request = with_target(request, name)
    check_early(request, machine.environ)
    named = named_environment(machine, request)
    wanted = of_environment(request, named)
    read = read_torches(wanted.torch, machine.settings)
    check_versions(wanted, read)
    located = _from_git(machine, wish) if wish else locate(machine, wanted)
    located = replace(checked_names(located), recipe=located.recipe.at(located.version))
    located = replace(located, warnings=(*located.warnings, *_departures(request, name, located)))
    inspected = _inspect(machine, located)
    pure = inspected.why_pure
    active = (named or default_environment(machine, request)) if _is_compiled(located, pure) else Active()
    expect = CostModel(machine.folders.costs).expect
    made = partial(made_before, machine.folders)
    recipe, host = located.recipe, machine.host
    proofs = partial(find_proofs, recipe.name)
    fetched = None if pure else asked_release(machine, request)
    pinned = located.version, located.source
    resolution = resolve(wanted, recipe, *pinned, host, expect, made, pure, fetched, proofs, active, read)
    located = replace(located, warnings=(*located.warnings, *inspected.about(torches_of(resolution.plan))))
    resolution = _with_found(_with_what_is_left(resolution, machine, request), located)
    return Planned(request, located, resolution, active.installed)


def _departures(request: Request, name: str, located: Located) -> Iterator[PlanWarning]:
    """Warn of a package that is not the one that the named target means: another version, commit or source."""
    packages = find_target(request.target).packages if request.target else {}
    meant = packages.get(canonicalize_name(name or located.recipe.name))
    if meant is None:
        return
    package, version = _split(meant.package)
    commit = recorded_commit(find_recipe(package), version) if meant.source == "git" else ""
    if (located.recipe.name, located.version, located.source.commit) != (package, version, commit):
        pin = located.source
        of = f"commit {pin.commit[:12]} of {pin.name}" if pin.commit else f"the {pin.kind} {pin.name}"
        yield PlanWarning(
            subject="target",
            message=f"the target {request.target} has {meant.package}{f' of commit {commit[:12]}' if commit else ''}, "
            f"this is {located.recipe.name}=={located.version} of {of}",
            hint=f"for the target's own: attnforge plan {name or located.recipe.name} --target {request.target}",
        )


def _is_compiled(located: Located, pure: str) -> bool:
    """Say whether a package compiles anything, as far as that is known before it is resolved."""
    release = located.recipe.release(located.version)
    return not pure and (release is None or release.compiled)


def _with_what_is_left(resolution: Resolution, machine: Machine, request: Request) -> Resolution:
    """Say what is fetched; expect nothing of a build whose wheel an earlier one finished."""
    plan = resolution.plan
    if not plan.is_compiled or finished_wheel(machine.folders, plan) is None:
        fetches = fetches_of(plan, machine.folders, request.cuda_mirror)
        return resolution.model_copy(update={"fetches": fetches})
    nothing = Estimate(seconds=0, peak_bytes=0, slots=resolution.estimate.slots)
    return resolution.model_copy(update={"estimate": nothing})


def _inspect(machine: Machine, located: Located) -> Inspected:
    """Return what the source of a package without a recipe says of its build; nothing for one with a recipe."""
    if not located.recipe.is_generic:
        return Inspected()
    return inspect_source(machine, located.recipe, located.version, located.source, located.path, located.address)


def checked_names(located: Located) -> Located:
    """Return a package found; RequestError where its source states a name or version that can't be one.

    Both become part of file names.
    """
    recipe, version = located.recipe, as_version(located.version)
    source = f"{located.source.kind} {located.source.name}"
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


def _with_found(resolution: Resolution, located: Located) -> Resolution:
    """Add what finding the source has to tell, before what resolving it has."""
    return resolution.model_copy(
        update={
            "decisions": (*located.decisions, *resolution.decisions),
            "warnings": (*located.warnings, *resolution.warnings),
        }
    )


def is_path(text: str) -> bool:
    """Say whether a user's word for a package is a path: it has a separator, is an archive that exists, or a recipe."""
    if text.partition("==")[0].endswith(RECIPE_SUFFIX):
        return True
    return "/" in text or text in (".", "..") or (text.endswith(_ARCHIVES) and Path(text).exists())


def locate(machine: Machine, request: Request) -> Located:
    """Find the package: a folder, an archive, a commit, a version that the recipe pins, or one of the package index."""
    recipe, version = own_recipe(request.package)
    if recipe is None and is_path(request.package) and request.source not in ("", request.package):
        raise RequestError(
            f"{request.package} is a source already, and --source names another",
            hint=f"attnforge build NAME==VERSION --source {request.source}",
        )
    if recipe is None and is_path(request.package):
        return _local(open_local(_expanded(request.package)))
    if recipe is None:
        name, version = _split(request.package)
        recipe = find_recipe(name)
    source = request.source or recipe.at(version or recipe.default_version or UNSTATED).sources[0]
    if source == "git" or is_git(source):
        return _from_git(machine, sourced_wish(recipe, version, source))
    _check_kind(source, recipe, version)
    if source == "carrier":
        return _carried(recipe, version or recipe.default_version)
    if source != "sdist":
        local = open_local(_expanded(source))
        return _local(local, recipe, version)
    return _indexed(machine, recipe, version, request)


def _from_git(machine: Machine, wish: GitWish) -> Located:
    found = locate_git(machine, wish)
    return Located(
        found.recipe,
        found.version,
        found.pin,
        address=found.address,
        decisions=(found.decision,),
        warnings=found.warnings,
    )


def own_recipe(package: str) -> tuple[Recipe | None, str]:
    """Return the user's own recipe, where the word for a package is the path of one, and the version after ``==``.

    RequestError where the file is missing or is no recipe: ``recipes.own.read_recipe``.
    """
    path, _, version = package.partition("==")
    if not path.endswith(RECIPE_SUFFIX):
        return None, ""
    recipe = read_recipe(_expanded(path))
    return recipe, _exact(version, path) if version else ""


def _exact(text: str, name: str) -> str:
    """Return a version as it is written; RequestError for what is none, such as 2.8.*."""
    if as_version(text) is None:
        raise RequestError(f"{shortened(text)!r} is no version", hint=f"write {name}==VERSION")
    return text


def _expanded(text: str) -> Path:
    """Return a path whose ~ is the home folder; ~USER stays as it is where there is no such user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _split(text: str) -> tuple[str, str]:
    try:
        requirement = Requirement(text)
    except (InvalidRequirement, ValueError, RecursionError):
        raise RequestError(f"{shortened(text)!r} is no package", hint="write NAME, NAME==VERSION or ./FOLDER") from None
    exact = [part.version for part in requirement.specifier if part.operator == "=="]
    if requirement.extras or requirement.marker:
        what = f"{shortened(text)!r} names more than a package and its version"
        raise RequestError(what, hint=f"write {requirement.name} or {requirement.name}==VERSION")
    if len(requirement.specifier) != len(exact) or len(exact) > 1:
        raise RequestError(f"{shortened(text)!r} is not one version", hint=f"write {requirement.name}==VERSION")
    return requirement.name, _exact(exact[0], requirement.name) if exact else ""


def _local(local: LocalSource, recipe: Recipe | None = None, version: str = "") -> Located:
    pin = SourcePin(kind=local.kind, name=local.path.name, sha256=local.sha256)
    recipe = recipe or find_recipe(local.name or local.path.name.split(".")[0])
    known = version or local.version or own_version(local.path, recipe.import_name)
    if not known and recipe.releases:
        raise RequestError(
            f"{local.path} does not state which version of {recipe.name} it is",
            why="which kernels it has depends on the version",
            hint=f"attnforge build {recipe.name}==VERSION --source '{local.path}'",
        )
    return Located(recipe, known or UNSTATED, pin, local.path, warnings=_submodules(local.path, recipe))


def _submodules(folder: Path, recipe: Recipe) -> tuple[PlanWarning, ...]:
    """Warn of a clone's submodules that are empty; RequestError where the recipe says that the build needs them."""
    needed = recipe.git.submodules if recipe.git else ()
    empty = [path for path in empty_submodules(folder) if path in needed or not needed] if folder.is_dir() else []
    if not empty:
        return ()
    what, hint = f"submodule {empty[0]} of {folder} is empty", f"git -C '{folder}' submodule update --init {empty[0]}"
    if needed:
        raise RequestError(what, why=f"the build of {recipe.name} needs it", hint=hint)
    return (PlanWarning(subject="source", message=what, hint=hint),)


def _check_kind(source: str, recipe: Recipe, version: str) -> None:
    """Refuse to look for a source where the recipe names none: another's package may have that name there."""
    kinds = recipe.at(version or recipe.default_version or UNSTATED).sources
    if source in ("sdist", "carrier") and source not in kinds:
        raise RequestError(
            f"{recipe.name} has no source of the kind {source}",
            why=f"its recipe names {', '.join(kinds)}",
            hint=f"--source {kinds[0]}",
        )


def _carried(recipe: Recipe, version: str) -> Located:
    carriers = {known: one for release in recipe.releases for known, one in release.carriers.items()}
    if version not in carriers:
        raise RequestError(
            f"no source archive is known that holds {recipe.name} {version}".rstrip(),
            why=f"its recipe names one for {', '.join(carriers) or 'no version'}",
            hint=f"attnforge build {recipe.name}=={version} --source git",
        )
    carrier = carriers[version]
    name = f"{carrier.distribution.replace('-', '_')}-{carrier.version}.tar.gz"
    pin = SourcePin(kind="sdist", name=name, sha256=carrier.sha256, subdirectory=carrier.subdirectory, carrier=carrier)
    told = f"{version} from the {carrier.subdirectory} of {carrier.distribution} {carrier.version}"
    return Located(recipe, version, pin, decisions=(Decision(subject="carrier", choice=told, reason=carrier.source),))


def _indexed(machine: Machine, recipe: Recipe, version: str, request: Request) -> Located:
    wanted = version or recipe.default_version
    for release in recipe.releases:
        if wanted in release.sha256:
            name = f"{recipe.name.replace('-', '_')}-{wanted}.tar.gz"
            return Located(recipe, wanted, SourcePin(kind="sdist", name=name, sha256=release.sha256[wanted]))
    found = offered(recipe.name, machine.settings, suggestions(recipe.name))
    chosen = _choose(recipe.name, wanted, found)
    for python in asked_pythons(request) or (machine.host.python,):
        _check_python(recipe.name, chosen, python)
    if not chosen.sha256:
        raise RequestError(
            f"the package index states no SHA-256 for {chosen.filename}",
            why="a source is taken by hash, so that the same plan is the same source",
            hint=f"download it, look at it, and build the file: attnforge build ./{chosen.filename}",
        )
    pin = SourcePin(kind="sdist", name=chosen.filename, sha256=chosen.sha256)
    return Located(recipe, chosen.version, pin, warnings=() if wanted else _newer(recipe.name, chosen, found))


def _newer(name: str, chosen: SdistRelease, found: Offered) -> tuple[PlanWarning, ...]:
    """Warn where a later release is wheels alone: who names no version expects the newest."""
    newest = as_version(found.newest)
    if newest is None or newest <= Version(chosen.version):
        return ()
    message = (
        f"{name} {chosen.version} is the newest of which the package index has a source archive;"
        f" the newest release, {newest}, has wheels alone"
    )
    hint = f"with its source in a folder: attnforge build {name}=={newest} --source ./FOLDER"
    return (PlanWarning(subject="source", message=message, hint=hint),)


def _check_python(name: str, release: SdistRelease, python: str) -> None:
    required, version = as_specifier(release.requires_python), as_version(python)
    if version is None:
        raise RequestError(f"{shortened(python)!r} is no version of Python", hint="for example --python 3.12")
    # What an index states and no specifier is says nothing.
    if required is not None and not required.contains(version):
        raise RequestError(
            f"{name} {release.version} needs Python {release.requires_python}, the target has {python}",
            hint="--python with one of these versions",
        )


def _choose(name: str, wanted: str, found: Offered) -> SdistRelease:
    sdists = found.sdists
    if not wanted:
        stable = [release for release in sdists if not release.yanked and not Version(release.version).is_prerelease]
        return (stable or list(sdists))[0]
    same = [release for release in sdists if Version(release.version) == as_version(wanted)]
    if same:
        return same[0]
    newest = ", ".join(f"{name}=={release.version}" for release in sdists[:4])
    if as_version(wanted) in map(as_version, found.wheels):
        raise RequestError(
            f"{name} {wanted} has wheels on the package index but no source archive",
            hint=f"with its source in a folder: attnforge build {name}=={wanted} --source ./FOLDER; the newest with an"
            f" archive are {newest}",
        )
    raise RequestError(f"there is no {name} {wanted} on the package index", hint=f"the newest are {newest}")
