"""A package that was found, and the kinds of source that it can have.

Each kind knows what pins it, where its files are on this machine, and how they are laid out for a build.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from attnforge.errors import BuildError
from attnforge.files import file_sha256
from attnforge.model.plan import Decision, PlanWarning, SourcePin
from attnforge.model.recipe import Recipe
from attnforge.model.release import Carrier
from attnforge.provision.archives import unpack
from attnforge.provision.carrier import lay_out_carrier
from attnforge.provision.gittree import copy_checkout
from attnforge.provision.giturl import GitAddress
from attnforge.provision.source import LocalSource, fetch_sdist
from attnforge.provision.trees import copy_tree, tree_sha256
from attnforge.workflow.machine import Machine
from attnforge.workflow.sources.checkouts import built_folder, check_out


@dataclass(frozen=True, slots=True)
class LaidOut:
    """A source in a folder that upstream's build may write into.

    ``folder`` is the one that is built. ``pointers`` are the paths of files whose contents Git LFS keeps elsewhere.
    """

    folder: Path
    pointers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sdist:
    """A source archive of the package index, by the name and version of its distribution."""

    pin: SourcePin
    distribution: str
    version: str

    def place(self, machine: Machine) -> Path:
        """Return the archive, fetched where the cache lacks it. Raises what ``fetch_sdist`` raises."""
        folders = machine.folders.ensure()
        return fetch_sdist(self.distribution, self.version, self.pin.sha256, folders, machine.settings)

    def lay_out(self, machine: Machine, into: Path) -> LaidOut:
        """Unpack the archive. RequestError for one that is damaged or unsafe."""
        return LaidOut(unpack(self.place(machine), into))


@dataclass(frozen=True, slots=True)
class Carried:
    """A source in the source archive of another distribution."""

    pin: SourcePin
    carrier: Carrier

    def place(self, machine: Machine) -> Path:
        """Return the carrier's archive, fetched where the cache lacks it. Raises what ``fetch_sdist`` raises."""
        return Sdist(self.pin, self.carrier.distribution, self.carrier.version).place(machine)

    def lay_out(self, machine: Machine, into: Path) -> LaidOut:
        """Unpack the carrier and add what it lacks. BuildError where it is not laid out as the recipe says."""
        return LaidOut(lay_out_carrier(unpack(self.place(machine), into), self.carrier))


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit of a git repository. ``address`` is where it is fetched from, with the user's credentials."""

    pin: SourcePin
    address: GitAddress

    def place(self, machine: Machine) -> Path:
        """Return the folder to build in the cache's checkout, fetched where it is not there. Write nothing into it."""
        found = check_out(machine, self.address, self.pin.commit, self.pin.submodules)
        return built_folder(found.path, self.pin.subdirectory, self.address)

    def lay_out(self, machine: Machine, into: Path) -> LaidOut:
        """Copy the commit's files. Raises what ``provision.gittree.checkout`` raises."""
        found = check_out(machine, self.address, self.pin.commit, self.pin.submodules)
        folder = built_folder(copy_checkout(found, into), self.pin.subdirectory, self.address)
        return LaidOut(folder, found.pointers)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of the user's."""

    pin: SourcePin
    path: Path

    def place(self, machine: Machine) -> Path:
        """Return the folder."""
        return self.path

    def lay_out(self, machine: Machine, into: Path) -> LaidOut:
        """Copy the folder. BuildError where it is not what was planned."""
        laid_out = copy_tree(self.path, into)
        _check_unchanged(self.path, self.pin, tree_sha256(laid_out))
        return LaidOut(laid_out)


@dataclass(frozen=True, slots=True)
class Archive:
    """A source archive of the user's."""

    pin: SourcePin
    path: Path

    def place(self, machine: Machine) -> Path:
        """Return the archive."""
        return self.path

    def lay_out(self, machine: Machine, into: Path) -> LaidOut:
        """Unpack the archive. BuildError where it is not what was planned, RequestError where it is unsafe."""
        laid_out = unpack(self.path, into)
        _check_unchanged(self.path, self.pin, file_sha256(self.path))
        return LaidOut(laid_out)


Source = Sdist | Carried | Commit | Folder | Archive


@dataclass(frozen=True, slots=True)
class Located:
    """A package that was found. ``decisions`` and ``warnings`` are what the user should know of how it was found."""

    recipe: Recipe
    version: str
    source: Source
    decisions: tuple[Decision, ...] = ()
    warnings: tuple[PlanWarning, ...] = ()

    @property
    def pin(self) -> SourcePin:
        """What pins the source."""
        return self.source.pin


def local_source(local: LocalSource, pin: SourcePin | None = None) -> Folder | Archive:
    """Return a folder or archive of the user's as a source. An earlier plan's ``pin`` stays, with the name in it."""
    pin = pin or SourcePin(kind=local.kind, name=local.path.name, sha256=local.sha256)
    return Folder(pin, local.path) if local.kind == "folder" else Archive(pin, local.path)


def _check_unchanged(path: Path, pin: SourcePin, sha256: str) -> None:
    if sha256 != pin.sha256:
        raise BuildError(f"{path} changed after it was planned", hint="run the same command again")
