"""Source archives of the package index: the package's own, or the one of another distribution that has its source."""

from __future__ import annotations

from collections.abc import Iterable

from packaging.version import Version

from attnforge.errors import RequestError
from attnforge.model.plan import Decision, PlanWarning, SourcePin
from attnforge.model.recipe import Recipe
from attnforge.model.release import Carrier
from attnforge.model.versions import as_specifier, as_version, shortened
from attnforge.provision.indexes import IndexSettings, Offered, SdistRelease, offered
from attnforge.recipes.catalogue import suggestions
from attnforge.workflow.sources.kinds import Carried, Located, Sdist


def locate_carried(recipe: Recipe, version: str) -> Located:
    """Find the source in another distribution's archive; RequestError where the recipe names none for the version."""
    carriers = {known: one for release in recipe.releases for known, one in release.carriers.items()}
    if version not in carriers:
        raise RequestError(
            f"no source archive is known that holds {recipe.name} {version}".rstrip(),
            why=f"its recipe names one for {', '.join(carriers) or 'no version'}",
            hint=f"attnforge build {recipe.name}=={version} --source git",
        )
    carrier = carriers[version]
    choice = f"{version} from the {carrier.subdirectory} of {carrier.distribution} {carrier.version}"
    decision = Decision(subject="carrier", choice=choice, reason=carrier.source)
    return Located(recipe, version, Carried(_carrier_pin(carrier), carrier), decisions=(decision,))


def _carrier_pin(carrier: Carrier) -> SourcePin:
    name = _archive_name(carrier.distribution, carrier.version)
    return SourcePin(kind="sdist", name=name, sha256=carrier.sha256, subdirectory=carrier.subdirectory, carrier=carrier)


def locate_sdist(recipe: Recipe, version: str, pythons: Iterable[str], settings: IndexSettings) -> Located:
    """Find the package's source archive. The index is asked only for a version that the recipe does not pin.

    RequestError where the index has no such archive, states no hash of it, or where it does not support one of
    ``pythons`` (``3.12``); HostError where the index can't be asked.
    """
    wanted = version or recipe.default_version
    for release in recipe.releases:
        if wanted in release.sha256:
            return _located(recipe, wanted, _archive_name(recipe.name, wanted), release.sha256[wanted])
    found = offered(recipe.name, settings, suggestions(recipe.name))
    chosen = _choose(recipe.name, wanted, found)
    for python in pythons:
        _check_python(recipe.name, chosen, python)
    if not chosen.sha256:
        raise RequestError(
            f"the package index states no SHA-256 for {chosen.filename}",
            why="a source is taken by hash, so that the same plan is the same source",
            hint=f"download it, inspect it, and build the file: attnforge build ./{chosen.filename}",
        )
    warnings = () if wanted else _newer(recipe.name, chosen, found)
    return _located(recipe, chosen.version, chosen.filename, chosen.sha256, warnings)


def _located(recipe: Recipe, version: str, name: str, sha256: str, warnings: tuple[PlanWarning, ...] = ()) -> Located:
    pin = SourcePin(kind="sdist", name=name, sha256=sha256)
    return Located(recipe, version, Sdist(pin, recipe.name, version), warnings=warnings)


def _archive_name(distribution: str, version: str) -> str:
    return f"{distribution.replace('-', '_')}-{version}.tar.gz"


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


def _newer(name: str, chosen: SdistRelease, found: Offered) -> tuple[PlanWarning, ...]:
    """Warn where a later release has only wheels: a user who names no version expects the newest."""
    newest = as_version(found.newest)
    if newest is None or newest <= Version(chosen.version):
        return ()
    message = (
        f"{name} {chosen.version} is the newest of which the package index has a source archive;"
        f" the newest release, {newest}, has only wheels"
    )
    hint = f"with its source in a folder: attnforge build {name}=={newest} --source ./FOLDER"
    return (PlanWarning(subject="source", message=message, hint=hint),)


def _check_python(name: str, release: SdistRelease, python: str) -> None:
    required, version = as_specifier(release.requires_python), as_version(python)
    if version is None:
        raise RequestError(f"{shortened(python)!r} is no version of Python", hint="for example --python 3.12")
    # A Requires-Python that can't be read is ignored, as pip does.
    if required is not None and not required.contains(version):
        raise RequestError(
            f"{name} {release.version} needs Python {release.requires_python}, the target has {python}",
            hint="--python with one of these versions",
        )
