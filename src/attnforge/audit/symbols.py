"""Resolves the symbols of a wheel's modules as the dynamic linker would, without loading anything."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from attnforge.audit import machine
from attnforge.audit.site import TorchSite
from attnforge.elf import Elf

# Mangled names of PyTorch's own namespaces (at, c10, caffe2, torch): only PyTorch provides these.
_TORCH_SYMBOL = re.compile(r"_Z(?:T[VIS])?(?:N[KVRO]*)?(?:2at|3c10|6caffe2|5torch)\w*")


@dataclass(frozen=True, slots=True)
class Absent:
    """A library that a module needs and that neither the wheel nor PyTorch brings.

    ``other`` is another version of it that PyTorch brings, or empty.
    """

    library: str
    module: str
    other: str


@dataclass(frozen=True, slots=True)
class Linkage:
    """How the symbols of a wheel's modules resolve.

    ``checked`` counts the symbols that had to be found outside of the C and C++ libraries, Python and the driver.
    ``undefined`` maps a mangled symbol that nothing provides to the modules that want it. ``doubtful`` ones may come
    from an absent library, or from PyTorch where none was given. ``unlinked`` maps a symbol to the library
    that has it and that none of the wanting module's needed libraries leads to.
    """

    checked: int = 0
    undefined: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    doubtful: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unlinked: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[Absent, ...] = ()


def link(modules: Mapping[str, Elf], site: TorchSite | None) -> Linkage:
    """Resolve the symbols of modules (path in the wheel -> image) against each other and against PyTorch."""
    wanted = _wanted(modules)
    own = _exported_by(modules, set(wanted))
    open_symbols = {symbol: users for symbol, users in wanted.items() if symbol not in own}
    absent = _absent(modules, site)
    if site is None:
        return Linkage(len(wanted), doubtful=open_symbols, absent=absent)
    site.check_whole(absence.library for absence in absent)
    missing, unlinked = _resolve(open_symbols, modules, site)
    blind = bool(absent)
    doubtful = {s: users for s, users in missing.items() if blind and not _TORCH_SYMBOL.fullmatch(s)}
    undefined = {s: users for s, users in missing.items() if s not in doubtful}
    return Linkage(len(wanted), undefined, doubtful, unlinked, absent)


def _wanted(modules: Mapping[str, Elf]) -> dict[str, tuple[str, ...]]:
    """Return the symbols that the machine does not provide, with the modules that want each."""
    wanted: dict[str, list[str]] = {}
    for path, elf in modules.items():
        needed = frozenset(elf.needed)
        for reference in elf.references():
            if not machine.provides_symbol(reference, needed):
                wanted.setdefault(reference.symbol, []).append(path)
    return {symbol: tuple(paths) for symbol, paths in sorted(wanted.items())}


def _exported_by(modules: Mapping[str, Elf], wanted: Set[str]) -> set[str]:
    return {symbol for elf in modules.values() for symbol in elf.exports(wanted)}


def _resolve(
    wanted: Mapping[str, tuple[str, ...]], modules: Mapping[str, Elf], site: TorchSite
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Return the symbols that no library of the site has, and those that only a library that isn't loaded has."""
    left = set(wanted)
    loaded = list(site.loaded(library for elf in modules.values() for library in elf.needed))
    for library in loaded:
        left -= site.exports(library, left)
    unlinked = {}
    for library in sorted(set(site.libraries) - set(loaded)) if left else ():
        found = site.exports(library, left)
        unlinked.update(dict.fromkeys(sorted(found), library))
        left -= found
    return {symbol: wanted[symbol] for symbol in sorted(left)}, unlinked


def _absent(modules: Mapping[str, Elf], site: TorchSite | None) -> tuple[Absent, ...]:
    """Return the needed libraries that nothing is known to bring; PyTorch's are unknown where no site was given."""
    inside = {path.rpartition("/")[2] for path in modules} | {elf.soname for elf in modules.values()}
    brought = inside | set(site.libraries if site else ())
    return tuple(
        Absent(library, path, site.sibling(library) if site else "")
        for path, elf in modules.items()
        for library in elf.needed
        if library not in brought and not machine.provides_library(library)
    )
