"""A recipe: what attnforge knows of a package, as data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from math import prod
from typing import Annotated, Literal, NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from pydantic import AfterValidator, Field, PositiveFloat, field_validator

from attnforge.model.base import Value, digest_of
from attnforge.model.target import Architecture
from attnforge.model.versions import as_specifier, as_version, shortened

SCHEMA = 1
"""The schema of recipes that this attnforge reads."""

# --- what stands in single fields: each check says what is wrong with a text


def _specifier(text: str) -> str:
    if as_specifier(text) is None:
        raise ValueError(f"Invalid specifier: {shortened(text)!r}")
    return text


def _version(text: str) -> str:
    if text and as_version(text) is None:
        raise ValueError(f"Invalid version: {shortened(text)!r}")
    return text


def _requirement(text: str) -> str:
    Requirement(text)
    return text


def _architecture(text: str) -> str:
    if Architecture.parse(text).digits != text:
        raise ValueError(f"{text!r} is written {Architecture.parse(text).digits!r} here, as nvcc writes it after sm_")
    return text


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    return text


def _sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError(f"{text!r} is no SHA-256: 64 hexadecimal digits, lower case; this has {len(text)} characters")
    return text


def _commit(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{40}", text):
        raise ValueError(f"{text!r} is no whole commit id: 40 hexadecimal digits, lower case")
    return text


def _repository(text: str) -> str:
    if not re.fullmatch(r"(?:https|ssh|file)://[^\s@]*(?:git@)?[^\s@]+", text):
        raise ValueError(f"{text!r} is no URL of a git repository: https://HOST/OWNER/REPOSITORY, without credentials")
    return text


def _tag(text: str) -> str:
    if text.count("{version}") != 1 or text.startswith("-"):
        raise ValueError(f"{text!r} does not say where the version stands in a tag: v{{version}}")
    return text


def _canonical(text: str) -> str:
    if not text or canonicalize_name(text) != text:
        raise ValueError(f"{text!r} is no canonical distribution name; write {canonicalize_name(text)!r}")
    return text


def _dotted(text: str) -> str:
    if not all(part.isidentifier() for part in text.split(".")):
        raise ValueError(f"{text!r} is no name that Python imports")
    return text


Specifier = Annotated[str, AfterValidator(_specifier)]
VersionText = Annotated[str, AfterValidator(_version)]
RequirementText = Annotated[str, AfterValidator(_requirement)]
ArchitectureText = Annotated[str, AfterValidator(_architecture)]
Expression = Annotated[str, AfterValidator(_expression), Field(json_schema_extra={"format": "regex"})]
Sha256 = Annotated[str, AfterValidator(_sha256), Field(json_schema_extra={"pattern": "^[0-9a-f]{64}$"})]
Commit = Annotated[str, AfterValidator(_commit), Field(json_schema_extra={"pattern": "^[0-9a-f]{40}$"})]
CanonicalName = Annotated[str, AfterValidator(_canonical)]
ImportName = Annotated[str, AfterValidator(_dotted)]

_KERNEL_NAME = re.compile(r"(?P<kind>[\w-]+?)-hdim(?P<head_dim>\d+)-(?P<dtype>[^\W_]+)(?P<variant>(?:-[^\W_]+)*)")

JOINT = "+"
"""Between the names of the kernels of merged units."""


def kernel_name(kind: str, head_dim: int | str, dtype: str, variant: str = "") -> str:
    """Return the name of a unit's kernels, such as ``forward-hdim64-bf16-causal``: in plans, units, costs, coverage.

    ``variant`` is what stands in upstream's file name behind the dtype, in words: ``causal``, ``paged-split``.
    """
    return f"{kind}-hdim{head_dim}-{dtype}" + (f"-{variant}" if variant else "")


_VALUES = re.compile(r"v\d+")


class KernelName(NamedTuple):
    """The parts of such a name. They sort as upstream's units that share most lie beside one another."""

    kind: str
    head_dim: int
    dtype: str
    variant: str

    @property
    def words(self) -> frozenset[str]:
        """The words of the variant."""
        return frozenset(self.variant.split("-"))

    @property
    def dims(self) -> str:
        """The head dimension, and that of the values where it is another: ``192``, ``192-v128``."""
        values = [word for word in self.variant.split("-") if _VALUES.fullmatch(word)]
        return "-".join([str(self.head_dim), *values])

    @classmethod
    def parse(cls, name: str) -> KernelName:
        """Read what ``kernel_name`` wrote; ValueError for anything else."""
        match = _KERNEL_NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"{name!r} is no name of kernels such as forward-hdim64-bf16-causal")
        return cls(match["kind"], int(match["head_dim"]), match["dtype"], match["variant"].removeprefix("-"))


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

    url: Annotated[str, AfterValidator(_repository)] = Field(description="its URL, without credentials")
    tag: Annotated[str, AfterValidator(_tag)] = Field(
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
    """A source archive of another distribution that holds this package's source.

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
    """What holds for some versions of a package."""

    versions: Specifier = Field(description="PEP 440 specifier of the versions that these facts hold for")
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
        description="exact version to the sdist of another distribution that holds its source, see below",
    )
    limited_api: str = Field(
        default="",
        description="the tag of the first Python (`cp39`) where the modules use Python's limited API alone: one wheel "
        "for it and each later one",
    )
    stable_abi: Specifier = Field(
        default="",
        description="the PyTorch versions for which upstream's build uses PyTorch's stable ABI alone: the wheel serves "
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
        "for these alone",
    )
    remedies: tuple[Remedy, ...] = Field(default=(), description="definitions that some CUDA versions need, see below")
    source: str = Field(default="", description="where these facts come from")

    def covers(self, version: str) -> bool:
        """Say whether the release's facts hold for a version."""
        return SpecifierSet(self.versions, prereleases=True).contains(Version(version))

    def remedies_for(self, cuda: str) -> tuple[Remedy, ...]:
        """Return the remedies that a CUDA version (``13.0``) needs."""
        return tuple(remedy for remedy in self.remedies if SpecifierSet(remedy.cuda).contains(cuda))


class Feature(Value):
    """Something that a user may leave out."""

    summary: str = Field(description="what it is; stands in the error of a call that asks for it")
    macro: str = Field(default="", description="the compiler macro that drops it from kernels")
    setting: str = Field(
        default="", description="the environment variable that drops it from upstream's build where it is `TRUE`"
    )
    kinds: tuple[str, ...] = Field(default=(), description="kinds of kernel that exist for it alone")
    variants: tuple[str, ...] = Field(
        default=(), description="words of variants: a kernel with one of them exists for this feature alone"
    )
    head_dims: tuple[int, ...] = Field(
        default=(), description="the head dimensions that it comes with; it goes with the last of them"
    )
    guard: str = Field(default="", description="C++ condition on `params`, true for a call that asks for it")
    refused: str = Field(
        default="", description="words with which upstream's own host code refuses a call for it, where it does"
    )
    asks: str = Field(default="", description="the argument of the Python call that asks for it")


class KernelSet(Value):
    """Kernels of one kind: each of these head dimensions with each dtype, value dimension and variant."""

    kind: str = Field(description="the recipe's own kind")
    head_dims: tuple[int, ...] = Field(default=(), description="empty: those of the release")
    dtypes: tuple[str, ...] = Field(default=(), description="empty: those of `kernels`")
    value_dims: tuple[int, ...] = Field(
        default=(), description="head dimensions of the values, where they are not those of queries and keys"
    )
    variants: tuple[str, ...] = Field(
        default=("",), description='in words as `variant` has them, joined by a dash; `""` for the plain one'
    )

    def names(self, head_dims: Sequence[int], dtypes: Sequence[str]) -> Iterator[str]:
        """Yield the names of the kernels; what the set leaves open is that of the release and of ``kernels``."""
        values = [f"v{dim}" for dim in self.value_dims] or [""]
        for head_dim, dtype in product(self.head_dims or head_dims, self.dtypes or dtypes):
            for words in product(values, self.variants):
                yield kernel_name(self.kind, head_dim, dtype, "-".join(filter(None, words)))


class Kernels(Value):
    """How upstream's translation units name their kernels."""

    pattern: Expression = Field(
        description="regular expression over a unit's file name, with groups `kind`, `head_dim`, `dtype` and, where "
        "upstream has them, `value_dim` and `variant`"
    )
    kinds: dict[str, str] = Field(description="what group `kind` matches, to the recipe's own kinds")
    dtypes: tuple[str, ...] = Field(description="dtypes that have kernels")
    file_dtypes: dict[str, str] = Field(
        default_factory=dict, description="what group `dtype` matches, to dtypes, where these differ"
    )
    sets: tuple[KernelSet, ...] = Field(default=(), description="which kernels there are, see below")
    head_dim_setting: str = Field(
        default="",
        description="the environment variable that drops a head dimension from upstream's build where it is `TRUE`, "
        "with `{head_dim}` in its name",
    )
    dtype_settings: dict[str, str] = Field(default_factory=dict, description="the same for each dtype that has one")
    symbol: Expression = Field(
        default="",
        description="regular expression over mangled names of kernels, with groups `head_dim` and `dtype`; for audits",
    )
    symbol_dtypes: dict[str, str] = Field(
        default_factory=dict, description="what group `dtype` of it matches, to dtypes"
    )
    dispatch: str = Field(default="", description="file name of the host unit that calls the kernels")

    @field_validator("pattern")
    @classmethod
    def _names_kernels(cls, value: str) -> str:
        return _with_groups(value, "kind", "head_dim", "dtype")

    @field_validator("symbol")
    @classmethod
    def _names_symbols(cls, value: str) -> str:
        return _with_groups(value, "head_dim", "dtype") if value else value

    def named(self, match: re.Match[str]) -> str:
        """Return the name of the kernels of a unit whose file name ``pattern`` matches."""
        found = match.groupdict()
        value = (found.get("value_dim") or "").strip("_")
        words = [f"v{value}"] if value else []
        words += (found.get("variant") or "").strip("_").split("_")
        return kernel_name(
            self.kinds[found["kind"]],
            found["head_dim"],
            self.file_dtypes.get(found["dtype"], found["dtype"]),
            "-".join(filter(None, words)),
        )

    def names(self, release: Release) -> tuple[str, ...]:
        """Return the names of all kernels of a release."""
        return tuple(name for one in self.sets for name in one.names(release.head_dims, self.dtypes))


def _with_groups(pattern: str, *names: str) -> str:
    absent = [name for name in names if name not in re.compile(pattern).groupindex]
    if absent:
        raise ValueError(f"{pattern!r} lacks the group {', '.join(f'(?P<{name}>…)' for name in absent)}")
    return pattern


Step = Literal["preprocess", "cudafe++", "cicc", "ptxas", "fatbinary", "compile"]
"""A program that nvcc runs. ``compile`` is the host compiler, also where a C++ unit needs nothing else."""

DEVICE_STEPS: tuple[Step, ...] = ("preprocess", "cicc", "ptxas")
"""The steps that run once for each architecture."""

HOST_STEPS: tuple[Step, ...] = ("preprocess", "cudafe++", "fatbinary", "compile")
"""The steps that run once for a unit, however many architectures it is compiled for."""


class Amount(Value):
    """CPU seconds or bytes of one step: what merged units share, and what each of them adds."""

    shared: float = Field(
        default=0,
        ge=0,
        description="seconds or bytes that are there once in a unit, and once in a group of merged units",
    )
    slim: float = Field(default=0, ge=0, description="what each unit adds, without any optional feature")
    full: float = Field(default=0, ge=0, description="what each adds with all of them")
    head_dim: float = Field(
        default=0, ge=0, description="what each head dimension after the first adds to a group, values' own counted too"
    )
    variants: dict[str, PositiveFloat] = Field(
        default_factory=dict,
        description="words of variants, to how many times `full` a unit with this word adds with all features",
    )
    head_dims: dict[str, PositiveFloat] = Field(
        default_factory=dict,
        description="head dimensions, to how many times as much all of it is, 1 for others; in a group `shared` goes "
        "by the largest of these",
    )
    codes: dict[ArchitectureText, dict[str, PositiveFloat]] = Field(
        default_factory=dict,
        description="architectures whose machine code has more kernels than that of others: head dimensions, to how "
        "many times as much `slim` and `full` are for it",
    )

    def each(self, features: float, words: Iterable[str] = ()) -> float:
        """Return what a unit adds that has this part (0 to 1) of the optional features, and these words of variants."""
        full = self.full * prod(self.variants.get(word, 1.0) for word in words)
        return self.slim + features * (full - self.slim)

    def of(self, kernels: Sequence[KernelName], features: float, code: str = "") -> float:
        """Return the amount of the units of these kernels, merged into one; ``code`` is the architecture (``80``)."""
        more = self.codes.get(code, {})
        shared = self.shared * max(self._of_dim(one.head_dim) for one in kernels)
        added = sum(
            self._of_dim(one.head_dim) * more.get(str(one.head_dim), 1.0) * self.each(features, one.words)
            for one in kernels
        )
        return shared + added + (len({one.dims for one in kernels}) - 1) * self.head_dim

    def alone(self, features: float) -> float:
        """Return the amount of one unit of the kind, whichever."""
        return self.shared + self.each(features)

    def _of_dim(self, head_dim: int) -> float:
        return self.head_dims.get(str(head_dim), 1.0)


class Cost(Value):
    """What units of a kind cost, alone and merged, step by step: CPU seconds, and bytes of memory at most."""

    kind: str = Field(description="a kind of kernel, or `dispatch`; a name for people where `units` are given")
    units: tuple[str, ...] = Field(
        default=(),
        description="file names of units that take this, of a package whose kernels are not told apart",
    )
    seconds: dict[Step, Amount] = Field(
        description="CPU seconds by the programs that nvcc runs: `preprocess`, `cudafe++`, `cicc`, `ptxas`, "
        "`fatbinary`, `compile`; see below"
    )
    bytes: dict[Step, Amount] = Field(description="peak memory of each, in bytes")
    late: dict[Step, Amount] = Field(
        default_factory=dict,
        description="bytes that a step holds at most after its memory has fallen to less than half of its peak for the "
        "first time, which is when the seconds that are `shared` are over; steps whose memory does not fall are not "
        "here",
    )
    # Past some size a compile takes longer than its parts.
    merged_seconds: float = Field(
        default=0,
        ge=0,
        description="CPU seconds, for one architecture, that the units of a group may add to what they share; 0: none "
        "are merged",
    )
    source: str = Field(description="how it was measured")

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
        return sum(self.seconds[step].alone(features) for step in steps if step in self.seconds)

    def peak(self, features: float) -> int:
        """Return the peak memory of one unit: its steps run one after the other."""
        return int(max(amount.alone(features) for amount in self.bytes.values()))

    def added(self, features: float) -> float:
        """Return the CPU seconds, for one architecture, that each further unit of a group adds."""
        steps = (*HOST_STEPS, *DEVICE_STEPS)
        return sum(self.seconds[step].each(features) for step in steps if step in self.seconds)


class Recipe(Value):
    """All that is known of a package: sources, releases, architectures, features, kernels, costs, build settings."""

    schema_: Literal[1] = Field(default=1, alias="schema", description="1")
    name: CanonicalName = Field(description="distribution name, canonical (`flash-attn`)")
    title: str = Field(description="name for people")
    summary: str = Field(description="one line for `attnforge packages`")
    homepage: str = Field(default="", description="where the project is; shown with errors")
    import_name: str = Field(
        default="", description="what Python imports; a folder's version is read from its `__init__.py`"
    )
    modules: tuple[ImportName, ...] = Field(
        default=(),
        description="extension modules by import name; the audit of a build expects them, and the plan's architectures "
        "in them",
    )
    default_version: VersionText = Field(default="", description="the version for a request that names none")
    adapter: str = Field(
        default="",
        description="folder under `recipes/` whose `adapter.py` has the package's own passes; empty for none",
    )
    sources: tuple[SourceKind, ...] = Field(
        default=("sdist", "folder", "archive"),
        description="kinds of source that the package builds from; the first is taken where a request names none",
    )
    instead: str = Field(
        default="", description="the package to build for GPUs that this one has no kernels for, shown with that error"
    )
    git: GitSource | None = Field(default=None, description="the repository, for `--source git` and `NAME@TAG`")
    requirements: tuple[RequirementText, ...] = Field(
        default=(),
        description="what upstream's build imports besides torch, pinned; complete, since upstream's own list is then "
        "not read",
    )
    settings: dict[str, str] = Field(default_factory=dict, description="environment variables of upstream's build")
    releases: tuple[Release, ...] = Field(
        default=(), description="facts by version, see below; the first that covers a version counts"
    )
    unit_architectures: tuple[UnitArchitectures, ...] = Field(
        default=(),
        description="units that can't be compiled for all that the package is; the first that matches counts",
    )
    outside: bool = Field(
        default=False,
        description="whether upstream may compile without the ninja that it is given (CMake, make, `use_ninja=False`): "
        "then there is no progress, memory limit or cache, and coverage says so",
    )
    asks_for_gpus: bool = Field(
        default=False,
        description="whether upstream's build asks for the GPUs of the machine; it then sees those of the target",
    )
    features: dict[str, Feature] = Field(default_factory=dict, description="what a user may leave out, by name")
    kernels: Kernels | None = Field(default=None, description="how upstream's units name their kernels")
    costs: tuple[Cost, ...] = Field(default=(), description="what units take before anything was measured here")

    @property
    def is_generic(self) -> bool:
        """Whether nothing is known of what the package's build makes."""
        return not (self.releases or self.modules or self.kernels)

    def release(self, version: str) -> Release | None:
        """Return what holds for a version, or None where the recipe knows nothing of it."""
        return next((release for release in self.releases if release.covers(version)), None)

    def at(self, version: str) -> Recipe:
        """Return the recipe with what its release of a version has in place of its own."""
        release = self.release(version)
        if release is None:
            return self
        own = {name: getattr(release, name) for name in ("modules", "sources", "requirements", "settings")}
        return self.model_copy(update={name: value for name, value in own.items() if value is not None})

    def modules_for(self, version: str, architectures: Sequence[Architecture]) -> tuple[str, ...]:
        """Return the modules that the build of a version makes for a target."""
        release = self.release(version)
        only = release.module_architectures if release else {}
        there = {architecture.digits for architecture in architectures}
        return tuple(module for module in self.modules if module not in only or there & set(only[module]))

    def code_of(self, version: str, architectures: Sequence[Architecture]) -> dict[str, tuple[str, ...]]:
        """Return the machine code (``sm_90a``) that each module of such a build has for the target's architectures."""
        release = self.release(version)
        only = release.module_architectures if release else {}
        return {
            module: tuple(one.sm for one in architectures if module not in only or one.digits in only[module])
            for module in self.modules_for(version, architectures)
        }

    def cost(self, kind: str) -> Cost | None:
        """Return what units of a kind cost, or None where nothing is known."""
        return next((cost for cost in self.costs if cost.kind == kind), None)

    def rules_digest(self) -> str:
        """Return the hex SHA-256 of what the recipe does to upstream's units and no other part of a plan says.

        That is its adapter, its features, how it tells kernels apart and which units are compiled for what; "" for a
        recipe that has none of these.
        """
        rules = self.to_json()
        told = {key: rules[key] for key in ("adapter", "features", "kernels", "unit_architectures", "asks_for_gpus")}
        told |= {"outside": True} if self.outside else {}
        return digest_of(told) if any(told.values()) else ""
