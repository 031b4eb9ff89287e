"""What each CUDA toolkit's nvcc accepts: host compilers and architectures."""

from __future__ import annotations

from functools import cache

from attnforge.knowledge.data import load
from attnforge.model.base import Value
from attnforge.model.host import HostCompiler
from attnforge.model.target import Architecture


class CompilerLimits(Value):
    """The host compilers that one CUDA toolkit takes, as major versions, both ends included.

    ``torch_max_*`` are the bounds that PyTorch's BuildExtension checks besides nvcc's own; 0 where it has none.
    ``architectures`` are those that nvcc makes machine code for, as it writes them after ``sm_``. ``max_glibc`` is the
    newest glibc (``2.40``) whose headers the toolkit's own compile with, "" where no bound is known.
    """

    cuda: str
    min_gcc: int
    max_gcc: int
    min_clang: int
    max_clang: int
    max_glibc: str
    torch_max_gcc: int
    torch_max_clang: int
    architectures: tuple[str, ...]

    def bounds(self, name: str) -> tuple[int, int]:
        """Return the lowest and highest major version of ``g++`` or ``clang++`` that nvcc takes."""
        return (self.min_clang, self.max_clang) if name.startswith("clang") else (self.min_gcc, self.max_gcc)

    def torch_max(self, name: str) -> int:
        """Return the highest major version of ``g++`` or ``clang++`` that PyTorch's build takes; 0 for no bound."""
        return self.torch_max_clang if name.startswith("clang") else self.torch_max_gcc

    def accepts(self, compiler: HostCompiler) -> bool:
        """Say whether nvcc takes a compiler and PyTorch's headers compile with it."""
        lowest, highest = self.bounds(compiler.name)
        return max(lowest, torch_minimum(compiler.name)) <= major_version(compiler.version) <= highest


class _Table(Value):
    source: str
    torch_source: str
    torch_min_gcc: int
    torch_min_clang: int
    toolkit: tuple[CompilerLimits, ...]


@cache
def _table() -> _Table:
    return load("host_compilers.toml", _Table)


def major_version(version: str) -> int:
    """Return 12 of ``12.2.0``; 0 for a text that starts with no number."""
    digits = version.split(".")[0]
    return int(digits) if digits.isdecimal() else 0


def torch_minimum(name: str) -> int:
    """Return the lowest major version of ``g++`` or ``clang++`` that PyTorch's headers compile with."""
    return _table().torch_min_clang if name.startswith("clang") else _table().torch_min_gcc


def is_newer_glibc(libc: str, bound: str) -> bool:
    """Say whether a C library (``glibc 2.41``) is a glibc above a bound (``2.40``); none is above "", no bound."""
    name, _, version = libc.partition(" ")
    return bool(bound) and name == "glibc" and _numbers(version) > _numbers(bound)


def all_limits() -> tuple[CompilerLimits, ...]:
    """Return the limits of every toolkit that is known, oldest first."""
    return _table().toolkit


def compiler_limits(cuda: str) -> CompilerLimits | None:
    """Return the limits of a toolkit (``13.0`` or ``13.0.88``), or None for one that is not known."""
    minor = ".".join(cuda.split(".")[:2])
    return next((limits for limits in all_limits() if limits.cuda == minor), None)


def supports(cuda: str, architecture: Architecture) -> bool:
    """Say whether that toolkit's nvcc makes machine code for an architecture, its suffix included.

    A toolkit that is newer than the table is taken for the newest one of its major version; nothing is known of any
    other that is not in it, so it supports nothing.
    """
    limits = compiler_limits(cuda) or _newest_before(cuda)
    return limits is not None and architecture.digits in limits.architectures


def _newest_before(cuda: str) -> CompilerLimits | None:
    wanted = _numbers(cuda)
    same_major = [limits for limits in all_limits() if _numbers(limits.cuda)[:1] == wanted[:1]]
    newest = same_major[-1] if same_major else None
    return newest if newest is not None and _numbers(newest.cuda) < wanted else None


def _numbers(cuda: str) -> tuple[int, ...]:
    return tuple(int(part) for part in cuda.split(".") if part.isdecimal())


@cache
def known_architectures() -> tuple[Architecture, ...]:
    """Return every architecture that some toolkit supports, in order."""
    return tuple(sorted({Architecture.parse(digits) for limits in all_limits() for digits in limits.architectures}))
