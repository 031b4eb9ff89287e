"""From a request to a plan."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from attnforge.compile.cost import CostModel
from attnforge.errors import RequestError
from attnforge.model.plan import UNSTATED, BuildPlan, Resolution, SourcePin
from attnforge.model.recipe import Recipe
from attnforge.model.request import Request
from attnforge.provision.indexes import SdistRelease, releases
from attnforge.provision.source import LocalSource, open_local
from attnforge.recipes.catalogue import find_recipe, recipes, suggestions
from attnforge.resolve.resolver import resolve, with_target
from attnforge.workflow.machine import Machine

_ARCHIVES = (".gz", ".tgz", ".bz2", ".xz", ".tar", ".zip")


@dataclass(frozen=True, slots=True)
class Located:
    """A package found: what is known of it, which version, its source by content, and where, if it lies here."""

    recipe: Recipe
    version: str
    source: SourcePin
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A resolution, and what carrying it out needs besides."""

    request: Request
    located: Located
    resolution: Resolution

    @property
    def plan(self) -> BuildPlan:
        """The plan."""
        return self.resolution.plan


def plan(machine: Machine, request: Request) -> Planned:
    """Resolve a request on this machine. Reads the package index only where the recipe pins no hash."""
    name = _split(request.package)[0] if not is_path(request.package) else ""
    request = with_target(request, name)
    located = locate(machine, request)
    expect = CostModel(machine.folders.costs).expect
    resolution = resolve(request, located.recipe, located.version, located.source, machine.host, expect)
    return Planned(request, located, resolution)


def is_path(text: str) -> bool:
    """Say whether a user's word for a package is a path: it has a separator, or is an archive's name that exists."""
    return "/" in text or text in (".", "..") or (text.endswith(_ARCHIVES) and Path(text).exists())


def locate(machine: Machine, request: Request) -> Located:
    """Find the package: a folder, an archive, a version that the recipe pins, or one of the package index."""
    if is_path(request.package) and request.source not in ("", request.package):
        raise RequestError(
            f"{request.package} is a source already, and --source names another",
            hint=f"attnforge build NAME==VERSION --source {request.source}",
        )
    if is_path(request.package):
        return _local(open_local(Path(request.package).expanduser()))
    name, version = _split(request.package)
    if request.source and request.source != "sdist":
        if request.source == "git":
            raise RequestError(
                f"{name} can't be built from git",
                why="its recipe names the source archive of the package index, and folders and archives that you have",
                hint="--source sdist, or clone it with its submodules and give the folder: --source PATH",
            )
        local = open_local(Path(request.source).expanduser())
        return _local(local, name, version)
    return _indexed(machine, find_recipe(name), version, request)


def _split(text: str) -> tuple[str, str]:
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        raise RequestError(f"{text!r} is no package", hint="write NAME, NAME==VERSION or ./FOLDER") from None
    exact = [part.version for part in requirement.specifier if part.operator == "=="]
    if len(requirement.specifier) != len(exact) or len(exact) > 1 or requirement.extras or requirement.marker:
        raise RequestError(f"{text!r} is not one version", hint=f"write {requirement.name}==VERSION")
    return requirement.name, exact[0] if exact else ""


def _local(local: LocalSource, name: str = "", version: str = "") -> Located:
    pin = SourcePin(kind=local.kind, name=local.path.name, sha256=local.sha256)
    recipe = find_recipe(name or local.name or local.path.name.split(".")[0])
    known = version or local.version or own_version(local.path, recipe.import_name)
    if not known and recipe.releases:
        raise RequestError(
            f"{local.path} does not state which version of {recipe.name} it is",
            why="which kernels it has depends on the version",
            hint=f"attnforge build {recipe.name}==VERSION --source '{local.path}'",
        )
    return Located(recipe, known or UNSTATED, pin, local.path)


def own_version(folder: Path, import_name: str) -> str:
    """Return the ``__version__`` that a package's ``__init__.py`` states as text, or "": a clone has no PKG-INFO."""
    init = folder / import_name / "__init__.py"
    if not import_name or not init.is_file():
        return ""
    match = re.search(r"^__version__\s*=\s*[\"']([^\"']+)[\"']", init.read_text("utf-8", "replace"), re.MULTILINE)
    return match[1] if match else ""


def _indexed(machine: Machine, recipe: Recipe, version: str, request: Request) -> Located:
    wanted = version or recipe.default_version
    for release in recipe.releases:
        if wanted in release.sha256:
            name = f"{recipe.name.replace('-', '_')}-{wanted}.tar.gz"
            return Located(recipe, wanted, SourcePin(kind="sdist", name=name, sha256=release.sha256[wanted]))
    near = suggestions(recipe.name) or list(recipes())
    chosen = _choose(recipe.name, wanted, releases(recipe.name, machine.settings, near))
    _check_python(recipe.name, chosen, request.python or machine.host.python)
    if not chosen.sha256:
        raise RequestError(
            f"the package index states no SHA-256 for {chosen.filename}",
            why="a source is taken by hash, so that the same plan is the same source",
            hint=f"download it, look at it, and build the file: attnforge build ./{chosen.filename}",
        )
    pin = SourcePin(kind="sdist", name=chosen.filename, sha256=chosen.sha256)
    return Located(recipe, chosen.version, pin)


def _check_python(name: str, release: SdistRelease, python: str) -> None:
    if release.requires_python and not SpecifierSet(release.requires_python, prereleases=True).contains(python):
        raise RequestError(
            f"{name} {release.version} needs Python {release.requires_python}, the target has {python}",
            hint="--python with one of these versions",
        )


def _choose(name: str, wanted: str, found: tuple[SdistRelease, ...]) -> SdistRelease:
    if not wanted:
        stable = [release for release in found if not release.yanked and not Version(release.version).is_prerelease]
        return (stable or list(found))[0]
    try:
        same = [release for release in found if Version(release.version) == Version(wanted)]
    except InvalidVersion:
        same = []
    if same:
        return same[0]
    newest = ", ".join(f"{name}=={release.version}" for release in found[:4])
    raise RequestError(f"there is no {name} {wanted} on the package index", hint=f"the newest are {newest}")
