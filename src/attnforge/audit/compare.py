"""Compares the device code of two wheels: the same functions, the same machine code, the same resources.

A function counts as the same where all that a GPU gets of it is the same, byte for byte. So the verdict "same" can be
relied on, and "different" may be harmless: code that reads shared constants is different where the other wheel has
them in another order, which it can be when units were merged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from attnforge.audit.cubin import read_cubin
from attnforge.audit.demangle import demangle
from attnforge.audit.device import architecture_of, find_fatbin
from attnforge.audit.fatbin import Entry, Kind
from attnforge.audit.machinecode import Shape, plain_name, read_functions
from attnforge.audit.metadata import import_name
from attnforge.audit.site import open_elf
from attnforge.errors import WheelError
from attnforge.model.comparison import Comparison, ComparisonVerdict, FunctionDifference, ModuleComparison, Sameness
from attnforge.model.target import Architecture
from attnforge.process.guard import temporary_folder
from attnforge.wheelfile.archive import Archive, open_archive
from attnforge.wheelfile.name import SHARED_OBJECT

# The shapes that functions of one name have, with a symbol of each. A kernel that several units instantiate is in the
# module several times, and functions of internal linkage share their names except for the module id.
_Shapes = dict[Shape, str]
_Functions = dict[str, _Shapes]
_Place = tuple[str, Architecture]


def compare_wheels(a: Path, b: Path) -> Comparison:
    """Say whether two wheels, also for different Pythons or PyTorches, hold the same machine code.

    Raises RequestError where there is no such file, WheelError where it is no whole archive, and HostError where there
    is no space to unpack its modules.
    """
    one, other = _read_wheel(a), _read_wheel(b)
    places = sorted({*one.functions, *other.functions})
    modules = tuple(_compare(place, one.functions.get(place, {}), other.functions.get(place, {})) for place in places)
    return Comparison(
        a=a.name,
        b=b.name,
        modules=modules,
        uncompared=(*(f"a: {text}" for text in one.uncompared()), *(f"b: {text}" for text in other.uncompared())),
        verdict=_verdict(modules, one, other),
    )


@dataclass(slots=True)
class _Code:
    """The machine code of a wheel, by module and architecture, and what is not compared."""

    functions: dict[_Place, _Functions] = field(default_factory=dict)
    ptx: dict[str, set[Architecture]] = field(default_factory=dict)
    damaged: dict[str, int] = field(default_factory=dict)

    def add_module(self, name: str, path: Path) -> None:
        try:
            with ExitStack() as stack:
                fatbin = find_fatbin(open_elf(path, stack))
        except WheelError:
            self.add_damage(name)
            return
        for entry in fatbin.entries if fatbin else ():
            self.add_entry(name, entry)
        self.add_damage(name, fatbin.damaged if fatbin else 0)

    def add_entry(self, name: str, entry: Entry) -> None:
        if entry.kind == Kind.PTX:
            self.ptx.setdefault(name, set()).add(architecture_of(entry))
        elif entry.kind == Kind.ELF:
            try:
                self.add_cubin(name, entry)
            except WheelError:
                self.add_damage(name)

    def add_cubin(self, name: str, entry: Entry) -> None:
        image = entry.payload()
        architecture = architecture_of(entry, read_cubin(image).suffix)
        # All of a cubin or nothing: half of a damaged one would look like a wheel that lacks the rest.
        for function in list(read_functions(image, entry.number)):
            there = self.functions.setdefault((name, architecture), {})
            there.setdefault(plain_name(function.symbol), {})[function.shape] = function.symbol

    def add_damage(self, name: str, count: int = 1) -> None:
        if count:
            self.damaged[name] = self.damaged.get(name, 0) + count

    def uncompared(self) -> Iterator[str]:
        if not self.functions:
            yield "no machine code to compare"
        for name, architectures in sorted(self.ptx.items()):
            listed = ", ".join(f"compute_{architecture.digits}" for architecture in sorted(architectures))
            yield f"{name}: PTX for {listed} is not compared"
        for name, count in sorted(self.damaged.items()):
            yield f"{name}: device code that can't be read ({count})"


def _read_wheel(path: Path) -> _Code:
    code = _Code()
    with open_archive(path) as archive, temporary_folder("attnforge-compare-") as folder:
        for name, module in _modules(archive, folder):
            code.add_module(name, module)
    return code


def _modules(archive: Archive, folder: Path) -> Iterator[tuple[str, Path]]:
    """Unpack each shared object under a name of ours; each is gone when the next one comes."""
    copy = folder / "module.so"
    for member in archive.members:
        if SHARED_OBJECT.search(member.path):
            archive.digest(member.path, "sha256", copy)
            yield import_name(member.path), copy


def _verdict(modules: tuple[ModuleComparison, ...], one: _Code, other: _Code) -> ComparisonVerdict:
    if not one.functions or not other.functions:
        return "unchecked"
    if not all(module.is_same for module in modules):
        return "different"
    return "unchecked" if one.damaged or other.damaged else "same"


def _compare(place: _Place, a: _Functions, b: _Functions) -> ModuleComparison:
    name, architecture = place
    common = sorted(a.keys() & b.keys())
    return ModuleComparison(
        path=name,
        architecture=architecture.sm,
        same=sum(a[key].keys() == b[key].keys() for key in common),
        only_a=_readable(a, b),
        only_b=_readable(b, a),
        different=tuple(difference for key in common for difference in _differences(a[key], b[key])),
    )


def _readable(there: _Functions, elsewhere: Mapping[str, object]) -> tuple[str, ...]:
    """Return the functions that are not elsewhere, by a name that a person reads."""
    missing = sorted(there.keys() - elsewhere.keys())
    return tuple(demangle(next(iter(there[key].values()))) for key in missing)


def _differences(a: _Shapes, b: _Shapes) -> Iterator[FunctionDifference]:
    """Pair the shapes that only one side has; one that is left over is compared with any of the other side."""
    alone, other = sorted(a.keys() - b.keys()), sorted(b.keys() - a.keys())
    for one, two in zip_longest(alone, other):
        yield _difference(one or min(a), two or min(b), next(iter(a.values())))


def _difference(a: Shape, b: Shape, symbol: str) -> FunctionDifference:
    return FunctionDifference(
        function=demangle(symbol),
        symbol=symbol,
        code=_sameness(a.code, b.code),
        constants=_sameness(a.constants, b.constants),
        attributes=_sameness(a.attributes, b.attributes),
        registers=(a.registers, b.registers),
        shared=(a.shared, b.shared),
        constant=(a.constant, b.constant),
        frame=(a.frame, b.frame),
        stack=(a.stack, b.stack),
    )


def _sameness(a: str, b: str) -> Sameness:
    return "same" if a == b else "different"
