"""The oldest Linux that a wheel runs on, by the policies that PyPA keeps in auditwheel."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING

from attnforge.audit import machine
from attnforge.elf import EM_AARCH64, EM_X86_64, Elf

if TYPE_CHECKING:
    from auditwheel.policy import Policy, WheelPolicies

# Libraries that PyTorch's wheel and those of NVIDIA that it depends on bring, and the driver's: a wheel for PyTorch
# must not carry copies, so they do not count (auditwheel's --exclude).
_BROUGHT = (
    *("libtorch*.so", "libc10*.so", "libcaffe2*.so", "libshm.so"),
    *("libcu*.so.*", "libnv*.so.*", "libnccl.so.*"),
)

_GLIBC, _GLIBCXX = "GLIBC_", "GLIBCXX_"
_NUMBERED = re.compile(r"\d+(?:\.\d+)+")


@dataclass(frozen=True, slots=True)
class Platform:
    """What the host code needs: the newest glibc and libstdc++ versions, and the platform tag that follows.

    ``reasons`` are the libraries that keep it from any manylinux tag.
    """

    tag: str
    glibc: str = ""
    glibcxx: str = ""
    reasons: tuple[str, ...] = ()


def platform_of(modules: Mapping[str, Elf]) -> Platform:
    """Return what a wheel's modules (path -> image) need together."""
    if not modules:
        return Platform("any")
    machines = {elf.machine for elf in modules.values()}
    name = _auditwheel_name(machines)
    versions = sorted({pair for elf in modules.values() for pair in elf.requirements()})
    glibc, glibcxx = _newest(versions, _GLIBC), _newest(versions, _GLIBCXX)
    if not name:
        return Platform("linux", glibc, glibcxx)
    external = _external(modules)
    policy = _policy(name, versions, external, {r.symbol for elf in modules.values() for r in elf.references()})
    outside = () if policy.priority else tuple(sorted(external - _allowed(name)))
    return Platform(policy.name, glibc, glibcxx, outside)


def satisfied_by(tag: str, claimed: str) -> bool:
    """Say whether a wheel that needs ``tag`` may be called ``claimed``: an equal or newer manylinux, or plain linux."""
    if "any" in (tag, claimed):
        return tag == "any"
    needs, claims = _glibc_of(tag), _glibc_of(claimed)
    return claims is None or (needs is not None and needs <= claims)


def is_common(library: str) -> bool:
    """Say whether manylinux allows a library on x86-64: every distribution has it (zlib, X11, GL and the like)."""
    return library in _allowed("x86_64")


def _auditwheel_name(machines: set[int]) -> str:
    names = {EM_X86_64: "x86_64", EM_AARCH64: "aarch64"}
    return names.get(next(iter(machines)), "") if len(machines) == 1 else ""


def _external(modules: Mapping[str, Elf]) -> set[str]:
    """Return the needed libraries that are neither in the wheel nor PyTorch's nor the loader."""
    inside = {path.rpartition("/")[2] for path in modules} | {elf.soname for elf in modules.values()}
    needed = {library for elf in modules.values() for library in elf.needed} - inside
    return {library for library in needed if not _is_exempt(library)}


def _is_exempt(library: str) -> bool:
    brought = any(fnmatchcase(library, pattern) for pattern in _BROUGHT)
    return brought or library.startswith("ld-linux") or library in machine.DRIVER_LIBRARIES


def _policy(name: str, versions: Iterable[tuple[str, str]], external: set[str], symbols: set[str]) -> Policy:
    """Return the strictest policy that allows all versions, all libraries and none of their private symbols."""
    policies = _policies(name)
    wanted: dict[str, set[str]] = {}
    for library, version in versions:
        # The loader's own versions are no part of the policies, nor are those of libraries that PyTorch brings.
        if not _is_exempt(library):
            wanted.setdefault(library, set()).add(version)
    by_symbols = policies.versioned_symbols_policy(wanted)
    return min(by_symbols, max(policy for policy in policies if _allows(policy, external, symbols)))


def _allows(policy: Policy, external: set[str], symbols: set[str]) -> bool:
    if not policy.priority:  # plain linux allows everything
        return True
    private = frozenset().union(*(policy.blacklist.get(library, frozenset()) for library in external))
    return external <= policy.whitelist and not private & symbols


def _allowed(name: str) -> frozenset[str]:
    return frozenset().union(*(policy.whitelist for policy in _policies(name) if policy.priority))


@cache
def _policies(name: str) -> WheelPolicies:
    from auditwheel.architecture import Architecture
    from auditwheel.libc import Libc
    from auditwheel.policy import WheelPolicies

    return WheelPolicies(libc=Libc.GLIBC, arch=Architecture(name))


def _newest(versions: Iterable[tuple[str, str]], prefix: str) -> str:
    numbers = [version.removeprefix(prefix) for _, version in versions if version.startswith(prefix)]
    numbers = [number for number in numbers if _NUMBERED.fullmatch(number)]
    return max(numbers, key=lambda number: tuple(map(int, number.split("."))), default="")


def _glibc_of(tag: str) -> tuple[int, int] | None:
    """Return the glibc of a manylinux tag (PEP 600, and the names before it), None for any other tag."""
    legacy = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
    match = re.match(r"manylinux_(\d+)_(\d+)_", tag)
    if match:
        return int(match[1]), int(match[2])
    return legacy.get(tag.partition("_")[0])
