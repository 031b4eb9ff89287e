"""Decides which objects of a module go into the kernels library, and which symbols cross between both. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from attnforge.elf import Elf


@dataclass(frozen=True, slots=True)
class ObjectFile:
    """An object of upstream's build: its path, the sources that it was compiled from, and its symbols.

    ``neutral`` says that its compile read nothing of PyTorch or Python, ``cuda`` that it may hold kernels. ``defines``
    are the symbols that it has, ``wants`` those that another object or a library has to have.
    """

    path: Path
    sources: tuple[str, ...]
    cuda: bool
    neutral: bool
    defines: frozenset[str]
    wants: frozenset[str]


@dataclass(frozen=True, slots=True)
class Partition:
    """The objects of one module: ``shared`` ones for the library, ``own`` ones for each pair's module.

    ``crossing`` are the symbols that own objects want and shared ones have, sorted. Without kernels to share there is
    no library, and all objects are own ones.
    """

    shared: tuple[ObjectFile, ...]
    own: tuple[ObjectFile, ...]
    crossing: tuple[str, ...]


def read_object(path: Path, sources: Sequence[str], *, cuda: bool, neutral: bool) -> ObjectFile:
    """Read the symbols of an object file; WheelError if it is none."""
    symbols = tuple(Elf.read(path.read_bytes()).symbols())
    defines = frozenset(symbol.name for symbol in symbols if symbol.defined)
    wants = frozenset(symbol.name for symbol in symbols if not symbol.defined) - defines
    return ObjectFile(path, tuple(sources), cuda, neutral, defines, wants)


def partition(objects: Iterable[ObjectFile]) -> Partition:
    """Divide the objects of a module.

    The library needs nothing of the modules. So it holds only neutral objects, and of these none that needs a symbol
    that only the modules have.
    """
    shared = [one for one in objects if one.neutral]
    own = [one for one in objects if not one.neutral]
    while True:
        theirs = _defined(own) - _defined(shared)
        bound = [one for one in shared if one.wants & theirs]
        if not bound:
            break
        shared, own = [one for one in shared if one not in bound], [*own, *bound]
    if not own or not any(one.cuda for one in shared):
        return together([*shared, *own])
    wanted = frozenset[str]().union(*(one.wants for one in own)) - _defined(own)
    return Partition(_sorted(shared), _sorted(own), tuple(sorted(wanted & _defined(shared))))


def together(objects: Iterable[ObjectFile]) -> Partition:
    """Return the partition that shares nothing."""
    return Partition((), _sorted(objects), ())


def init_name(objects: Iterable[ObjectFile]) -> str:
    """Return the leaf of the name that a module is imported by (``_C``), by the function that Python calls; or ""."""
    found = sorted(symbol for one in objects for symbol in one.defines if symbol.startswith("PyInit_"))
    return found[0].removeprefix("PyInit_") if found else ""


def _defined(objects: Iterable[ObjectFile]) -> frozenset[str]:
    return frozenset[str]().union(*(one.defines for one in objects))


def _sorted(objects: Iterable[ObjectFile]) -> tuple[ObjectFile, ...]:
    return tuple(sorted(objects, key=lambda one: str(one.path)))
