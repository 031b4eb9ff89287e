"""What the stages of a build make: each value has its own type, and later stages ask for it by that type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from attnforge.compile.run.summary import Summary
from attnforge.compile.run.work import Product
from attnforge.link.linker import Library
from attnforge.model.universal import Pair, Universal


@dataclass(frozen=True, slots=True)
class SourceTree:
    """The source of the plan in a folder that upstream's build may write into."""

    folder: Path


@dataclass(frozen=True, slots=True)
class CompiledBefore:
    """Compiled code that was in the source before its build: names by SHA-256."""

    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PureWheel:
    """Upstream's wheel of a package that compiles nothing."""

    path: Path


@dataclass(frozen=True, slots=True)
class Compiled:
    """What upstream's build made: its wheel, its objects, and what the PyTorch of the build answered."""

    wheel: Path
    summary: Summary
    products: tuple[Product, ...]
    answers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Parts:
    """The modules and libraries of a universal wheel so far, and what the wheel says of them.

    ``universal`` names the pairs that have modules. ``built`` are files that this build made, by their paths in the
    wheel. ``libraries`` are the kernels libraries by the names of their modules. ``summaries`` are of the compiles for
    pairs whose kernels were there already.
    """

    universal: Universal
    libraries: Mapping[str, Library]
    built: Mapping[str, bytes] = field(default_factory=dict)
    summaries: tuple[tuple[Pair, Summary], ...] = ()

    @property
    def answers(self) -> frozenset[str] | None:
        """What each PyTorch has to answer to share the kernels; None where no kernels are shared."""
        return frozenset(self.universal.answers) if self.libraries else None


@dataclass(frozen=True, slots=True)
class Packed:
    """A wheel of ours, in the folder of the build."""

    wheel: Path


@dataclass(frozen=True, slots=True)
class Delivered:
    """The wheel in the user's folder."""

    wheel: Path
