"""The compile graph: what upstream's build asks ninja to make, as frozen values that passes transform."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import PurePosixPath


class Language(StrEnum):
    """What a unit's command is, as far as passes and the cost model need to know."""

    CUDA = "cuda"
    CXX = "cxx"
    DEVICE_LINK = "device-link"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class InParts:
    """How cicc compiles the kernels of a unit in parts: by headers (absolute paths) that it is given one of each time.

    Each of ``headers`` leaves the kernels of the other parts out. With ``index`` cicc writes all kernels in their
    order, without their bodies.
    """

    index: str
    headers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """One translation unit: a command that makes one object.

    ``output`` and ``sources`` are absolute paths, ``cwd`` the folder that the command runs in, ``needs`` the outputs
    of other units that must exist first. ``empty`` units are not compiled: an object without content is put in their
    place, because the link step names it. ``kernel`` is the recipe's name of the kernels inside ("" where none is
    known) and ``cost_key`` names units whose time and memory are alike.

    ``fallback`` are units that together make the same object, and those of ``members``, in another way. They are
    compiled where this one does not compile: so nothing that a pass tries can fail a build that would have passed.
    ``members`` are the outputs of units that were merged into this one; they get objects without content.
    ``ignores`` are variables of the environment that its compile does not see.
    ``shares`` are pairs of architectures: code for the first (``sm_90``) is made from the PTX for the second, where
    that is proven. ``parts`` says how its kernels are compiled in parts, None for at once. ``left_out`` are pairs of an
    architecture and a regular expression over the mangled names of functions that its code does without.
    ``module_id`` is the name that cudafe++ puts into symbols of internal linkage; where it is set, nvcc's steps are
    run one by one.
    """

    output: str
    sources: tuple[str, ...]
    argv: tuple[str, ...]
    cwd: str
    language: Language
    needs: tuple[str, ...] = ()
    depfile: str = ""
    empty: bool = False
    kernel: str = ""
    cost_key: str = ""
    ignores: tuple[str, ...] = ()
    shares: tuple[tuple[str, str], ...] = ()
    parts: InParts | None = None
    left_out: tuple[tuple[str, str], ...] = ()
    module_id: str = ""
    members: tuple[str, ...] = ()
    fallback: tuple[Unit, ...] = ()

    @property
    def name(self) -> str:
        """The file name for people: the source's, or the output of a command that is no compile."""
        is_made = self.language is Language.OTHER or not self.sources
        return PurePosixPath(self.output if is_made else self.sources[0]).name


@dataclass(frozen=True, slots=True)
class GeneratedFile:
    """A file of ours that the graph's commands read: absolute path and text. Written before anything is compiled."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class CompileGraph:
    """The units of one call of ninja, in the order in which they were written."""

    units: tuple[Unit, ...]
    files: tuple[GeneratedFile, ...] = ()

    def map(self, function: Callable[[Unit], Unit]) -> CompileGraph:
        """Return the graph with ``function`` applied to each unit, to the fallbacks that it has before."""

        def deep(unit: Unit) -> Unit:
            return function(replace(unit, fallback=tuple(deep(other) for other in unit.fallback)))

        return replace(self, units=tuple(deep(unit) for unit in self.units))

    def with_files(self, *files: GeneratedFile) -> CompileGraph:
        """Return the graph with more generated files."""
        return replace(self, files=(*self.files, *files))

    @property
    def compiled(self) -> tuple[Unit, ...]:
        """The units that a compiler has to run for."""
        return tuple(unit for unit in self.units if not unit.empty)


Pass = Callable[[CompileGraph], CompileGraph]
