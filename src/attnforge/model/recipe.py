"""A recipe: what attnforge knows of a package, as data."""

from __future__ import annotations

import re
from typing import Literal

from packaging.specifiers import SpecifierSet
from packaging.version import Version
from pydantic import Field, field_validator

from attnforge.model.base import Value


def kernel_name(kind: str, head_dim: int | str, dtype: str, causal: bool) -> str:
    """Return the name of a unit's kernels, such as ``forward-hdim64-bf16-causal``: in plans, units, costs, coverage."""
    return f"{kind}-hdim{head_dim}-{dtype}" + ("-causal" if causal else "")


class Remedy(Value):
    """Compiler definitions without which some CUDA versions can't compile a release.

    ``cuda`` is the specifier of those versions; ``defines`` go to CUDA units as ``-DNAME=VALUE``. They may change what
    compiles and never what it computes.
    """

    cuda: str
    defines: dict[str, str]
    why: str
    source: str


class Release(Value):
    """What holds for some versions of a package.

    ``versions`` is a PEP 440 specifier. ``architectures`` are those that upstream's sources can be compiled for, as
    nvcc writes them (``80``, ``90a``), empty for any. ``cuda`` is a specifier for the toolkit. ``sha256`` maps exact
    versions to the digest of their sdist, as the package index states it.
    """

    versions: str
    architectures: tuple[str, ...] = ()
    head_dims: tuple[int, ...] = ()
    cuda: str = ""
    torch: str = ""
    sha256: dict[str, str] = Field(default_factory=dict)
    remedies: tuple[Remedy, ...] = ()
    source: str = Field(default="", description="where these facts come from")

    def covers(self, version: str) -> bool:
        """Say whether the release's facts hold for a version."""
        return SpecifierSet(self.versions, prereleases=True).contains(Version(version))

    def remedies_for(self, cuda: str) -> tuple[Remedy, ...]:
        """Return the remedies that a CUDA version (``13.0``) needs."""
        return tuple(remedy for remedy in self.remedies if SpecifierSet(remedy.cuda).contains(cuda))


class Feature(Value):
    """Something that a user may leave out.

    ``macro`` is the compiler macro that drops it from kernels, ``kinds`` the kinds of kernel that exist only for it.
    ``guard`` is a C++ condition on ``params`` that is true for a call that asks for it.
    """

    summary: str
    macro: str = ""
    kinds: tuple[str, ...] = ()
    guard: str = ""
    asks: str = Field(default="", description="the argument of the Python call that asks for it")


class Kernels(Value):
    """How upstream's translation units name their kernels.

    ``pattern`` is a regular expression over the file name with groups kind, head_dim, dtype and causal; ``kinds``
    maps what group ``kind`` matches to the recipe's kinds. ``symbol`` matches the mangled names of device functions,
    with groups head_dim and dtype, for audits.
    """

    pattern: str
    kinds: dict[str, str]
    dtypes: tuple[str, ...]
    symbol: str = ""
    symbol_dtypes: dict[str, str] = Field(default_factory=dict)
    dispatch: str = Field(default="", description="file name of the host unit that calls the kernels")

    @field_validator("pattern", "symbol")
    @classmethod
    def _compiles(cls, value: str) -> str:
        re.compile(value)
        return value


class Cost(Value):
    """What one unit of a kind costs: CPU ``seconds`` and ``peak_bytes`` for one architecture.

    ``slim`` figures are for units without any optional feature, ``full`` for units with all of them.
    """

    kind: str
    slim_seconds: float
    full_seconds: float
    slim_bytes: int
    full_bytes: int
    source: str


class Recipe(Value):
    """All that is known of a package: sources, releases, architectures, features, kernels, costs, build settings."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    name: str
    title: str
    summary: str
    homepage: str = ""
    import_name: str = ""
    modules: tuple[str, ...] = Field(default=(), description="extension modules, by their import name")
    default_version: str = ""
    adapter: str = ""
    sources: tuple[Literal["sdist", "folder", "archive"], ...] = ("sdist", "folder", "archive")
    requirements: tuple[str, ...] = Field(default=(), description="what upstream's build imports, pinned")
    settings: dict[str, str] = Field(default_factory=dict, description="environment variables of upstream's build")
    releases: tuple[Release, ...] = ()
    features: dict[str, Feature] = Field(default_factory=dict)
    kernels: Kernels | None = None
    costs: tuple[Cost, ...] = ()

    def release(self, version: str) -> Release | None:
        """Return what holds for a version, or None where the recipe knows nothing of it."""
        return next((release for release in self.releases if release.covers(version)), None)
