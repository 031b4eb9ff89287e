"""Checks the form of a universal wheel: where files are, and whether modules, loaders and libraries fit together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath
from posixpath import normpath
from typing import Any

from attnforge.audit import machine
from attnforge.audit.contents import Contents
from attnforge.audit.demangle import demangle
from attnforge.audit.metadata import MACHINES
from attnforge.audit.record import listed
from attnforge.elf import Elf, Reference
from attnforge.model.finding import Finding, Severity
from attnforge.model.universal import DOCUMENT, Pair, Universal, UniversalModule, numbers, pair_of, sorted_pairs
from attnforge.wheelfile.embedded import parse_universal
from attnforge.wheelfile.name import SHARED_OBJECT

_REBUILD = "build the wheel again"


@dataclass(frozen=True, slots=True)
class Place:
    """Whose module a shared object is by its path: the folder of the loader, and the PyTorch and Python."""

    folder: str
    torch: str
    python: str

    @property
    def pair(self) -> tuple[str, str]:
        """(``2.11``, ``3.12``)."""
        return self.torch, self.python


@dataclass(frozen=True, slots=True)
class Described:
    """What a universal wheel says of itself: ``universal.json``, and the pairs of its plan, None where it has none."""

    universal: Universal
    planned: tuple[Pair, ...] | None


def describe(contents: Contents) -> Described | None:
    """Return what a universal wheel says of itself; None for any other wheel, WheelError where it is unreadable."""
    if f"{contents.dist_info}/{DOCUMENT}" not in contents.files:
        return None
    universal = parse_universal(contents.text(DOCUMENT), contents.archive.path.name)
    return Described(universal, _planned(contents.plan()))


def _planned(plan: Any) -> tuple[Pair, ...] | None:
    try:
        return tuple(Pair.model_validate(pair) for pair in plan["pairs"])
    except (ValueError, KeyError, TypeError):
        return None


def place_of(path: str) -> Place | None:
    """Return whose module a shared object is: ``a/b/torch2.11/b.cpython-312-….so``; None for any other file."""
    pair, place = pair_of(path), PurePosixPath(path)
    folder = place.parent.parent
    return Place(str(folder), *pair) if pair and folder.name == place.name.partition(".")[0] else None


def told_pairs(pairs: Iterable[tuple[str, str]]) -> str:
    """Return pairs as people read them: ``PyTorch 2.11, 2.12 with Python 3.11, 3.12``."""
    ordered = sorted(set(pairs), key=lambda pair: (numbers(pair[0]), numbers(pair[1])))
    pythons = {torch: ", ".join(python for _, python in rows) for torch, rows in groupby(ordered, lambda p: p[0])}
    alike: dict[str, list[str]] = {}
    for torch, listing in pythons.items():
        alike.setdefault(listing, []).append(torch)
    return "; ".join(f"PyTorch {', '.join(torches)} with Python {listing}" for listing, torches in alike.items())


def holds_kernels(universal: Universal, path: str) -> bool | None:
    """Say whether a shared object has to hold device code; None where universal.json does not say."""
    place = place_of(path)
    for module in universal.modules:
        if place and place.folder == module.folder and module.library:
            return bool(module.own)
        if module.library and path == module.library_path:
            return True if any(source.endswith(".cu") for source in module.shared) else None
    return None


def check_universal(wheel: Described, paths: Collection[str], images: Mapping[str, Elf]) -> Iterator[Finding]:
    """Say where a universal wheel is not of its form.

    ``paths`` are those of all files, ``images`` the shared objects that could be read, by path.
    """
    universal = wheel.universal
    found = tuple(_check_form(wheel, paths, images))
    yield from found
    if not found:
        libraries = sum(bool(module.library) for module in universal.modules)
        seen = f"{told_pairs(pair.key for pair in universal.pairs)}; modules {_names(universal)}, libraries {libraries}"
        yield Finding(code="universal", severity=Severity.OK, subject="universal.json", seen=seen)


def _check_form(wheel: Described, paths: Collection[str], images: Mapping[str, Elf]) -> Iterator[Finding]:
    universal = wheel.universal
    yield from _check_plan(universal.pairs, wheel.planned)
    yield from _check_pairs(universal, paths, images)
    for module in universal.modules:
        own = {path: elf for path, elf in images.items() if (at := place_of(path)) and at.folder == module.folder}
        yield from _check_loader(module, paths)
        yield from _check_exports(module, own)
        if module.library:
            yield from _check_library(module, paths, images)
            yield from _check_ways(module, own)
    yield from _check_sonames(images)


def _check_plan(pairs: Sequence[Pair], planned: Sequence[Pair] | None) -> Iterator[Finding]:
    """Compare the pairs of universal.json with those of the plan."""
    if planned is None:
        yield _error("pair-plan", "plan.json", "no plan with pairs", "universal.json can't be compared with it")
        return
    for name, there, elsewhere in (("universal.json", pairs, planned), ("plan.json", planned, pairs)):
        alone = set(there) - set(elsewhere)
        if alone:
            seen = f"only {name} names {listed(_exactly(pair) for pair in sorted_pairs(alone))}"
            yield _error("pair-plan", name, seen, "what the wheel says that it was built for is not what it holds")


def _check_pairs(universal: Universal, paths: Collection[str], images: Mapping[str, Elf]) -> Iterator[Finding]:
    """Say which pairs lack a module, and which shared objects nothing would load."""
    keys = sorted({pair.key for pair in universal.pairs})
    wanted = {Place(module.folder, *key) for module in universal.modules for key in keys}
    there: set[Place] = set()
    left = []
    libraries = {module.library_path for module in universal.modules if module.library}
    for path in sorted(path for path in paths if _is_ours(universal, path) and path not in libraries):
        place = place_of(path)
        if place and place in wanted - there and _is_named_for(path, images.get(path)):
            there.add(place)
        else:
            left.append(path)
    for module in universal.modules:
        absent = [place.pair for place in wanted - there if place.folder == module.folder]
        if absent:
            yield _missing(module, absent)
    if left:
        means = "universal.json names no such module, so that nothing loads it: it is of another build"
        yield _error("pair-unexpected", listed(left), "a shared object that belongs to no pair", means)


def _is_named_for(path: str, elf: Elf | None) -> bool:
    """Say whether a module's suffix (``-x86_64-linux-gnu.so``) is that of its processor: Python looks for no other."""
    return elf is None or f"-{MACHINES.get(elf.machine)}-" in PurePosixPath(path).name


def _missing(module: UniversalModule, absent: Iterable[tuple[str, str]]) -> Finding:
    return _error(
        "pair-missing",
        module.name,
        f"no module for {told_pairs(absent)}",
        "universal.json names it: there the import fails",
        f"{_REBUILD}, or add what is missing: attnforge extend WHEEL --torch VERSION --python VERSION",
    )


def _check_loader(module: UniversalModule, paths: Collection[str]) -> Iterator[Finding]:
    if f"{module.folder}/__init__.py" not in paths:
        seen = f"no {module.folder}/__init__.py"
        yield _error("loader-missing", module.name, seen, "nothing chooses the module that fits: the import fails")
    beside = sorted(path for path in paths if path.startswith(f"{module.folder}.") and path.endswith((".so", ".py")))
    if beside:
        means = f"{module.folder}/ has the same name: Python takes one of them and never reaches the other"
        yield _error("loader-beside", module.name, f"{listed(beside)} beside the loader", means)


def _check_exports(module: UniversalModule, modules: Mapping[str, Elf]) -> Iterator[Finding]:
    """Say which modules do not define the one function that Python looks for, and which define more.

    One that has no library may define more: it is upstream's own, and nothing binds to what one module defines.
    """
    wanted = f"PyInit_{module.leaf}"
    exported = {path: set(elf.exported()) for path, elf in modules.items() if elf.has_dynamic_symbols}
    bare = [path for path, names in exported.items() if wanted not in names]
    if bare:
        yield _error("module-exports", listed(bare), f"no {wanted}", "Python finds no module in it: the import fails")
    open_ones = [path for path, names in exported.items() if names - {wanted}] if module.library else []
    if open_ones:
        names = sorted(set().union(*(exported[path] for path in open_ones)) - {wanted})
        seen = f"it defines {listed(map(demangle, names))} for others"
        yield _error("module-exports", listed(open_ones), seen, _TAKEN)


_TAKEN = "another copy that was loaded with RTLD_GLOBAL could be taken in its place, or it in the place of another"


def _check_library(module: UniversalModule, paths: Collection[str], images: Mapping[str, Elf]) -> Iterator[Finding]:
    path = module.library_path
    if path not in paths:
        yield _error("library-missing", module.name, f"no {path}", "it has the kernels: no module can be loaded")
        return
    elf = images.get(path)
    if elf is None:  # it could not be read, which is reported
        return
    if elf.soname != module.library:
        seen = f"its soname is {elf.soname or 'not set'}"
        yield _error("library-soname", path, seen, "modules need it by that name, and then it is not found")
    yield from _check_independence(path, elf)
    suffix = f".{module.digest}"
    plain = sorted(name for name in elf.exported() if not name.endswith(suffix))
    if plain:
        seen = f"it defines {listed(map(demangle, plain))} for others, without {suffix}"
        yield _error("library-exports", path, seen, _TAKEN)


def _check_independence(path: str, elf: Elf) -> Iterator[Finding]:
    """Say what binds a library to a PyTorch, a Python or a CUDA runtime: libraries and symbols that it needs."""
    brought = machine.SYSTEM_LIBRARIES | machine.DRIVER_LIBRARIES
    needed = [library for library in elf.needed if library not in brought]
    symbols = sorted({reference.symbol for reference in elf.references() if _binds(reference, frozenset(elf.needed))})
    seen = [f"it needs {listed(needed)}"] if needed else []
    seen += [f"{len(symbols)} symbols of others: {listed(map(demangle, symbols))}"] if symbols else []
    if seen:
        means = "it has to load with each PyTorch and each Python of the wheel, and so may need none of their libraries"
        yield _error("library-bound", path, "; ".join(seen), means)


def _binds(reference: Reference, needed: frozenset[str]) -> bool:
    return machine.is_python_symbol(reference.symbol) or not machine.provides_symbol(reference, needed)


def _check_ways(module: UniversalModule, modules: Mapping[str, Elf]) -> Iterator[Finding]:
    """Say which modules do not lead to their library: they name it, and the folder that it is in."""
    unnamed = [path for path, elf in modules.items() if module.library not in elf.needed]
    if unnamed:
        seen = f"it does not need {module.library}"
        yield _error("library-unnamed", listed(unnamed), seen, "its kernels are not loaded with it: the import fails")
    lost = [path for path, elf in modules.items() if module.library_path not in _looked_for(path, elf, module.library)]
    if lost:
        seen = (
            f"its RUNPATH is {listed(sorted({folder for path in lost for folder in modules[path].rpath})) or 'empty'}"
        )
        means = f"that does not lead to {module.library_path}: the import fails"
        yield _error("library-path", listed(lost), seen, means)


def _looked_for(path: str, elf: Elf, library: str) -> set[str]:
    """Return the paths in the wheel at which a module's own search path has the dynamic linker look for a library."""
    origin = str(PurePosixPath(path).parent)
    folders = [folder.replace("${ORIGIN}", "$ORIGIN") for folder in elf.rpath]
    inside = (folder for folder in folders if folder.startswith("$ORIGIN"))
    return {normpath(f"{folder.replace('$ORIGIN', origin, 1)}/{library}") for folder in inside}


def _check_sonames(images: Mapping[str, Elf]) -> Iterator[Finding]:
    """Say which libraries share a soname: of two, a process loads only the first."""
    sonames = {path: elf.soname for path, elf in images.items() if elf.soname and not place_of(path)}
    twice = sorted(soname for soname, count in Counter(sonames.values()).items() if count > 1)
    for soname in twice:
        sharing = sorted(path for path, one in sonames.items() if one == soname)
        means = "a process loads only the first, and modules of the other one get its functions"
        yield _error("library-twice", listed(sharing), f"all have the soname {soname}", means)


def _is_ours(universal: Universal, path: str) -> bool:
    """Say whether a file is a shared object that a loader is in charge of, or looks like one."""
    inside = any(path.startswith(f"{module.folder}/") for module in universal.modules)
    return bool(SHARED_OBJECT.search(path)) and (inside or pair_of(path) is not None)


def _names(universal: Universal) -> str:
    return ", ".join(module.name for module in universal.modules)


def _exactly(pair: Pair) -> str:
    compiler = f", {pair.host_compiler}" if pair.host_compiler else ""
    return f"{pair} ({pair.torch}{compiler})"


def _error(code: str, subject: str, seen: str, means: str, hint: str = _REBUILD) -> Finding:
    return Finding(code=code, severity=Severity.ERROR, subject=subject, seen=seen, means=means, hint=hint)
