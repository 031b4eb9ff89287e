"""What a recipe says of some versions of a package: sources, architectures, requirements, settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from packaging.specifiers import SpecifierSet
from packaging.version import Version
from pydantic import Field

from attnforge.model.base import Value
from attnforge.model.fields import (
    ArchitectureText,
    CanonicalName,
    Commit,
    Expression,
    ImportName,
    RepositoryUrl,
    RequirementText,
    Sha256,
    Specifier,
    TagPattern,
    VersionText,
)
from attnforge.model.target import Architecture


class Remedy(Value):
    """Compiler definitions without which some CUDA versions can't compile a release."""

    cuda: Specifier = Field(description="specifier of the CUDA versions that need it")
    defines: dict[str, str] = Field(
        description="macros for CUDA units (`-DNAME=VALUE`); they may change what compiles and never what it computes"
    )
    why: str = Field(description="shown by `plan --explain`")
    source: str = Field(description="where that was seen")


class GitSource(Value):
    """A package's git repository."""

    url: RepositoryUrl = Field(description="its URL, without credentials")
    tag: TagPattern = Field(
        default="v{version}", description="how the tag of a version is written, `v{version}` for most"
    )
    submodules: tuple[str, ...] = Field(
        default=(), description="paths of the submodules that the build needs; empty: all of them"
    )
    subdirectory: str = Field(default="", description="the folder that is built; empty: the top of the repository")


class UnitArchitectures(Value):
    """What some units can be compiled for, where others of the same package can be compiled for more."""

    units: Expression = Field(description="regular expression over the file names of the units, whole")
    architectures: tuple[ArchitectureText, ...] = Field(description="what these can be compiled for")
    source: str = Field(default="", description="where that was seen")


def compiled_for(
    name: str, wanted: Sequence[Architecture], limits: Sequence[UnitArchitectures]
) -> tuple[Architecture, ...]:
    """Return those of ``wanted`` that the unit of this file name can be compiled for.

    The first limit that names the unit counts; one that none names can be compiled for all.
    """
    limit = next((one for one in limits if re.fullmatch(one.units, name)), None)
    return tuple(one for one in wanted if limit is None or one.digits in limit.architectures)


SourceKind = Literal["sdist", "carrier", "git", "folder", "archive"]


class Carrier(Value):
    """A source archive of another distribution that has this package's source.

    Paths are those inside the archive, below its top folder.
    """

    distribution: CanonicalName = Field(description="the distribution, as the package index names it")
    version: VersionText = Field(description="its version")
    sha256: Sha256 = Field(description="SHA-256 of its sdist")
    subdirectory: str = Field(description="the folder that is built")
    files: dict[str, str] = Field(
        default_factory=dict, description="files that upstream's build reads and the archive lacks, to their texts"
    )
    source: str = Field(default="", description="where that was seen")


class Release(Value):
    """Facts of some versions of a package."""

    versions: Specifier = Field(description="PEP 440 specifier of the versions with these facts")
    compiled: bool = Field(
        default=True,
        description="whether the build compiles anything; false: pure Python, one wheel for every Python, PyTorch and "
        "CUDA, planned without a toolchain",
    )
    architectures: tuple[ArchitectureText, ...] = Field(
        default=(),
        description="what the sources can be compiled for, as nvcc writes it (`80`, `90a`); of pure Python, the GPUs "
        "that run it; empty: each GPU's own capability",
    )
    head_dims: tuple[int, ...] = Field(default=(), description="head dimensions that have kernels")
    cuda: Specifier = Field(
        default="", description="specifier for the CUDA of nvcc, which may be another minor than PyTorch's"
    )
    torch: Specifier = Field(default="", description="specifier for its PyTorch")
    sha256: dict[VersionText, Sha256] = Field(
        default_factory=dict,
        description="exact version to SHA-256 of its sdist; such a version plans without a network",
    )
    commits: dict[VersionText, Commit] = Field(
        default_factory=dict,
        description="exact version to its commit in the recipe's repository; such a version plans from git without a "
        "network",
    )
    carriers: dict[VersionText, Carrier] = Field(
        default_factory=dict,
        description="exact version to the sdist of another distribution that has its source, see below",
    )
    limited_api: str = Field(
        default="",
        description="the tag of the first Python (`cp39`) if the modules use only Python's limited API: one wheel "
        "for it and each later one",
    )
    stable_abi: Specifier = Field(
        default="",
        description="the PyTorch versions for which upstream's build uses only PyTorch's stable ABI: the wheel serves "
        "the target's PyTorch and later ones",
    )
    modules: tuple[ImportName, ...] | None = Field(
        default=None, description="in place of the recipe's, where they differ"
    )
    sources: tuple[SourceKind, ...] | None = Field(default=None, description="likewise")
    requirements: tuple[RequirementText, ...] | None = Field(default=None, description="likewise")
    settings: dict[str, str] | None = Field(default=None, description="likewise")
    module_architectures: dict[ImportName, tuple[ArchitectureText, ...]] = Field(
        default_factory=dict,
        description="modules that the build makes only for a target with one of these architectures, and whose code is "
        "only for these",
    )
    remedies: tuple[Remedy, ...] = Field(default=(), description="definitions that some CUDA versions need, see below")
    source: str = Field(default="", description="where these facts come from")

    def covers(self, version: str) -> bool:
        """Say whether the release has the facts of a version."""
        return SpecifierSet(self.versions, prereleases=True).contains(Version(version))

    def remedies_for(self, cuda: str) -> tuple[Remedy, ...]:
        """Return the remedies that a CUDA version (``13.0``) needs."""
        return tuple(remedy for remedy in self.remedies if SpecifierSet(remedy.cuda).contains(cuda))
