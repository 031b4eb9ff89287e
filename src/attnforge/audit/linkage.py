"""Says what the unresolved symbols and libraries of a wheel mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from attnforge.audit.demangle import demangle
from attnforge.audit.manylinux import is_common
from attnforge.audit.record import listed
from attnforge.audit.site import TorchSite
from attnforge.audit.symbols import Absent, Linkage
from attnforge.model.finding import Finding, Severity

_FA = "https://github.com/Dao-AILab/flash-attention/issues"
_REBUILD = "build it for the PyTorch that it will be used with: attnforge build PACKAGE --torch VERSION"
_GIVE = "give a PyTorch to check against: --python PATH of an interpreter that has it, or --torch VERSION"


@dataclass(frozen=True, slots=True)
class _Mismatch:
    """A kind of undefined symbol that people have met, what it means, the thread, and what fixes it."""

    pattern: re.Pattern[str]
    means: str
    link: str
    hint: str = _REBUILD


# First match wins. The C++11 ABI shows in std::string's name; c10::SourceLocation is how the same mismatch was met
# (FA#1644). c10::cuda's functions changed their signatures between minor releases of PyTorch (FA#723, FA#1832).
_MISMATCHES = (
    _Mismatch(
        re.compile(r"\.[0-9a-f]{16}$"),
        "the library of kernels beside the module has to, and is from another build",
        "",
        "build the wheel again",
    ),
    _Mismatch(
        re.compile(r"SourceLocation|__cxx1112basic_string|RKSs|ESs"),
        "the C++11 ABI of the wheel and of this PyTorch differ, or they are of different releases",
        f"{_FA}/1644",
    ),
    _Mismatch(
        re.compile(r"_ZN3c104cuda"),
        "the wheel was built for another minor release of PyTorch, where these functions have other signatures",
        f"{_FA}/723",
    ),
    _Mismatch(
        re.compile(r"_Z(?:T[VIS])?(?:N[KVRO]*)?(?:2at|3c10|6caffe2|5torch)"),
        "the wheel was built for another release of PyTorch",
        f"{_FA}/1832",
    ),
    _Mismatch(
        re.compile(r"cu[A-Z]"),
        "these are functions of the driver, whose library the module does not name",
        "https://github.com/thu-ml/SageAttention/issues/245",
    ),
)
_UNKNOWN = _Mismatch(re.compile(""), "the import fails", "")


def check_linkage(
    linkage: Linkage, site: TorchSite | None, looked_at: Path | None, python: str = ""
) -> Iterator[Finding]:
    """Say how the symbols of a wheel resolve against a PyTorch, or that the folder has none.

    ``python`` is ``3.12`` where these are the modules of a universal wheel for that Python.
    """
    with_python = f", Python {python}" if python else ""
    if site is None and linkage.doubtful:
        yield _unchecked(linkage, looked_at, f"symbols{with_python}")
        return
    torch = (f"PyTorch {site.torch}".strip() if site else "symbols") + with_python
    for kind, symbols in _by_kind(linkage.undefined).items():
        yield _undefined(kind, symbols, linkage.undefined, torch)
    if linkage.doubtful:
        yield _doubtful(linkage.doubtful)
    if linkage.unlinked:
        yield _unlinked(linkage.unlinked)
    if not (linkage.undefined or linkage.doubtful):
        yield Finding(
            code="symbols", severity=Severity.OK, subject=torch, seen=f"{linkage.checked} symbols, all provided"
        )
    if site is not None:
        yield from _absences(linkage.absent)


def _by_kind(symbols: Iterable[str]) -> dict[_Mismatch, list[str]]:
    kinds: dict[_Mismatch, list[str]] = {}
    for symbol in symbols:
        kind = next((kind for kind in _MISMATCHES if kind.pattern.search(symbol)), _UNKNOWN)
        kinds.setdefault(kind, []).append(symbol)
    return kinds


def _undefined(kind: _Mismatch, symbols: list[str], users: Mapping[str, tuple[str, ...]], torch: str) -> Finding:
    return Finding(
        code="undefined-symbol",
        severity=Severity.ERROR,
        subject=listed(sorted({user for symbol in symbols for user in users[symbol]})),
        seen=f"{len(symbols)} undefined: {listed(map(_both, symbols))}",
        means=f"no library of {torch} provides them: {kind.means}",
        hint=kind.hint,
        link=kind.link,
    )


def _both(symbol: str) -> str:
    """Return a symbol as the dynamic linker names it, which is what people search for, and readable."""
    readable = demangle(symbol)
    return symbol if readable == symbol else f"{symbol} ({readable})"


def _doubtful(symbols: Mapping[str, tuple[str, ...]]) -> Finding:
    return Finding(
        code="symbols-unchecked",
        severity=Severity.UNCHECKED,
        subject=listed(sorted({user for users in symbols.values() for user in users})),
        seen=f"{len(symbols)} symbols: {listed(map(demangle, symbols))}",
        means="they may come from a needed library that is neither in the wheel nor PyTorch's",
        hint="put the library into the wheel, or audit on a machine where it is beside PyTorch",
    )


def _unlinked(symbols: Mapping[str, str]) -> Finding:
    return Finding(
        code="symbols-unlinked",
        severity=Severity.WARNING,
        subject=listed(sorted(set(symbols.values()))),
        seen=f"{len(symbols)} symbols: {listed(map(demangle, symbols))}",
        means="no needed library leads to where they are: the import fails unless something else has loaded it",
        hint="link the module against that library",
    )


def _absences(absences: Iterable[Absent]) -> Iterator[Finding]:
    users: dict[tuple[str, str], list[str]] = {}
    for absent in absences:
        users.setdefault((absent.library, absent.other), []).append(absent.module)
    for (library, other), modules in users.items():
        if other:
            yield _other_version(library, other, modules)
        elif not is_common(library):
            yield _not_brought(library, modules)


def _other_version(library: str, other: str, modules: list[str]) -> Finding:
    return Finding(
        code="library-version",
        severity=Severity.ERROR,
        subject=listed(modules),
        seen=f"needs {library}; PyTorch brings {other}",
        means="the wheel was built for another CUDA than this PyTorch: the import fails",
        hint="build it with PyTorch's own CUDA: attnforge build PACKAGE --torch VERSION --cuda VERSION",
        link=f"{_FA}/2783",
    )


def _not_brought(library: str, modules: list[str]) -> Finding:
    return Finding(
        code="library-absent",
        severity=Severity.WARNING,
        subject=listed(modules),
        seen=f"needs {library}",
        means="neither the wheel nor PyTorch brings it: it has to be on the machine",
        hint="put it into the wheel with `auditwheel repair`, or tell users to install it",
    )


def _unchecked(linkage: Linkage, looked_at: Path | None, subject: str) -> Finding:
    where = f"{looked_at} holds no PyTorch" if looked_at else "no PyTorch was given"
    return Finding(
        code="symbols-unchecked",
        severity=Severity.UNCHECKED,
        subject=subject,
        seen=f"{len(linkage.doubtful)} symbols; {where}",
        means="whether the wheel fits PyTorch's C++ ABI is unknown",
        hint=_GIVE,
    )
