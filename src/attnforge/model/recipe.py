"""A recipe: what attnforge knows of a package, as data."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from packaging.specifiers import SpecifierSet
from packaging.version import Version
from pydantic import Field, field_validator

from attnforge.model.base import Value

_KERNEL_NAME = re.compile(r"(?P<kind>[\w-]+?)-hdim(?P<head_dim>\d+)-(?P<dtype>\w+)(?P<causal>-causal)?")

JOINT = "+"
"""Between the names of the kernels of merged units."""


def kernel_name(kind: str, head_dim: int | str, dtype: str, causal: bool) -> str:
    """Return the name of a unit's kernels, such as ``forward-hdim64-bf16-causal``: in plans, units, costs, coverage."""
    return f"{kind}-hdim{head_dim}-{dtype}" + ("-causal" if causal else "")


class KernelName(NamedTuple):
    """The parts of such a name. They sort as upstream's units that share most lie beside one another."""

    kind: str
    head_dim: int
    dtype: str
    causal: bool

    @classmethod
    def parse(cls, name: str) -> KernelName:
        """Read what ``kernel_name`` wrote; ValueError for anything else."""
        match = _KERNEL_NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"{name!r} is no name of kernels such as forward-hdim64-bf16-causal")
        return cls(match["kind"], int(match["head_dim"]), match["dtype"], bool(match["causal"]))


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


Step = Literal["preprocess", "cudafe++", "cicc", "ptxas", "fatbinary", "compile"]
"""A program that nvcc runs. ``compile`` is the host compiler, also where a C++ unit needs nothing else."""

DEVICE_STEPS: tuple[Step, ...] = ("preprocess", "cicc", "ptxas")
"""The steps that run once for each architecture."""

HOST_STEPS: tuple[Step, ...] = ("preprocess", "cudafe++", "fatbinary", "compile")
"""The steps that run once for a unit, however many architectures it is compiled for."""


class Amount(Value):
    """CPU seconds or bytes of one step: what merged units share, and what each of them adds.

    ``slim`` is added by each unit without any optional feature, ``full`` by one with all of them, ``head_dim`` by each
    head dimension after the first.
    """

    shared: float = Field(default=0, ge=0)
    slim: float = Field(default=0, ge=0)
    full: float = Field(default=0, ge=0)
    head_dim: float = Field(default=0, ge=0)

    def each(self, features: float) -> float:
        """Return what a unit adds that has this part (0 to 1) of the optional features."""
        return self.slim + features * (self.full - self.slim)

    def of(self, units: int, head_dims: int, features: float) -> float:
        """Return the amount of so many units of so many head dimensions, merged into one."""
        return self.shared + units * self.each(features) + (head_dims - 1) * self.head_dim


class Cost(Value):
    """What units of a kind cost, alone and merged, step by step: CPU ``seconds``, and ``bytes`` of memory at most.

    ``merged_seconds`` bounds how many are merged: the CPU seconds, for one architecture, that the units of a group may
    add to what they share. Past some size a compile takes longer than its parts. 0: such units are not merged.
    """

    kind: str
    seconds: dict[Step, Amount]
    bytes: dict[Step, Amount]
    merged_seconds: float = Field(default=0, ge=0)
    source: str

    @property
    def slim_seconds(self) -> float:
        """CPU seconds of a unit without any optional feature, for one architecture."""
        return self.alone(0.0)

    @property
    def full_seconds(self) -> float:
        """CPU seconds of a unit with all optional features, for one architecture."""
        return self.alone(1.0)

    @property
    def slim_bytes(self) -> int:
        """Peak memory of a unit without any optional feature."""
        return self.peak(0.0)

    @property
    def full_bytes(self) -> int:
        """Peak memory of a unit with all optional features."""
        return self.peak(1.0)

    def alone(self, features: float) -> float:
        """Return the CPU seconds of one unit for one architecture. Device steps and host steps both preprocess."""
        steps = (*HOST_STEPS, *DEVICE_STEPS)
        return sum(self.seconds[step].of(1, 1, features) for step in steps if step in self.seconds)

    def peak(self, features: float) -> int:
        """Return the peak memory of one unit: its steps run one after the other."""
        return int(max(amount.of(1, 1, features) for amount in self.bytes.values()))

    def added(self, features: float) -> float:
        """Return the CPU seconds, for one architecture, that each further unit of a group adds."""
        steps = (*HOST_STEPS, *DEVICE_STEPS)
        return sum(self.seconds[step].each(features) for step in steps if step in self.seconds)


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

    def cost(self, kind: str) -> Cost | None:
        """Return what units of a kind cost, or None where nothing is known."""
        return next((cost for cost in self.costs if cost.kind == kind), None)
