"""The device code of one module: exact architectures, functions, and kernels by head dimension and dtype."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from attnforge.audit.cubin import read_cubin
from attnforge.audit.fatbin import Entry, Fatbin, Kind, read_fatbin
from attnforge.elf import Elf
from attnforge.errors import WheelError
from attnforge.model.audit import KernelCount
from attnforge.model.kernels import Kernels
from attnforge.model.target import Architecture

# What the driver loads. Beside it, __nv_relfatbin keeps the objects that were linked into it (nvcc -rdc=true), which
# no driver reads and cuobjdump does not list either.
_SECTION = ".nv_fatbin"


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """What the fatbins of a module hold.

    ``architectures`` are those of machine code that has a function in it: nvcc also emits cubins without any.
    ``mismatched`` are entries whose cubin is for another architecture than the entry says, and ``damaged`` counts
    what could not be read.
    """

    present: bool = False
    architectures: tuple[Architecture, ...] = ()
    ptx: tuple[Architecture, ...] = ()
    kernels: frozenset[str] = frozenset()
    functions: frozenset[str] = frozenset()
    mismatched: tuple[str, ...] = ()
    damaged: int = 0


def read_device_code(elf: Elf) -> DeviceCode:
    """Read all device code of a module."""
    found = _Found()
    fatbin = find_fatbin(elf)
    if fatbin is None:
        return found.value(present=False)
    found.damaged = fatbin.damaged
    for entry in fatbin.entries:
        found.add(entry)
    return found.value(present=True)


def find_fatbin(elf: Elf) -> Fatbin | None:
    """Return the device code of a module, unread; None where it has none."""
    section = elf.section(_SECTION)
    if section is None or not section.size:
        return None
    return read_fatbin(elf.data, section.offset, section.offset + section.size)


def architecture_of(entry: Entry, suffix: str = "") -> Architecture:
    """Return the architecture that an entry is for; ``suffix`` is what its image says, for entries that don't."""
    return Architecture(major=entry.number // 10, minor=entry.number % 10, suffix=entry.suffix or suffix)


def count_kernels(names: Iterable[str], kernels: Kernels | None) -> tuple[KernelCount, ...]:
    """Count kernels by the head dimension and dtype in their mangled names, as the recipe's ``symbol`` reads them."""
    if kernels is None or not kernels.symbol:
        return ()
    pattern = re.compile(kernels.symbol)
    dtypes = kernels.symbol_dtypes
    matches = (match for name in names if (match := pattern.search(name)))
    counts = Counter((int(match["head_dim"]), dtypes.get(match["dtype"], match["dtype"])) for match in matches)
    return tuple(KernelCount(head_dim=dim, dtype=dtype, count=count) for (dim, dtype), count in sorted(counts.items()))


class _Found:
    def __init__(self) -> None:
        self.code: set[Architecture] = set()
        self.ptx: set[Architecture] = set()
        self.kernels: set[str] = set()
        self.functions: set[str] = set()
        self.mismatched: set[str] = set()
        self.damaged = 0

    def add(self, entry: Entry) -> None:
        if entry.kind == Kind.PTX:
            self.ptx.add(architecture_of(entry))
        elif entry.kind == Kind.ELF:
            try:
                self._add_cubin(entry)
            except WheelError:
                self.damaged += 1

    def _add_cubin(self, entry: Entry) -> None:
        cubin = read_cubin(entry.payload())
        architecture = architecture_of(entry, cubin.suffix)
        if cubin.number != entry.number:
            self.mismatched.add(f"{architecture.sm} holds code for sm_{cubin.number}")
        if cubin.functions:
            self.code.add(architecture)
        self.kernels.update(cubin.kernels)
        self.functions.update(cubin.functions)

    def value(self, *, present: bool) -> DeviceCode:
        return DeviceCode(
            present,
            tuple(sorted(self.code)),
            tuple(sorted(self.ptx)),
            frozenset(self.kernels),
            frozenset(self.functions),
            tuple(sorted(self.mismatched)),
            self.damaged,
        )
