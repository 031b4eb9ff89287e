"""What the wheels of a PyTorch tell of it: the CUDA in their requirements, the Pythons in their file names."""

from __future__ import annotations

import re
from collections.abc import Iterable

from packaging.utils import canonicalize_name
from packaging.version import Version

from attnforge.model.versions import applies, as_requirement
from attnforge.wheelfile.name import WheelName

# The requirements that name the toolkit, best first: cuda-toolkit since PyTorch 2.12, the runtime before.
_TOOLKIT = re.compile(r"cuda-toolkit|nvidia-cuda-runtime(?:-cu\d+)?")
_LINUX = re.compile(r"(?:linux|manylinux[\w.]*)_x86_64")
_CPYTHON = re.compile(r"cp3(?P<minor>\d+)")
_TARGET = {
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "sys_platform": "linux",
    "os_name": "posix",
    "platform_python_implementation": "CPython",
    "implementation_name": "cpython",
}


def cuda_in(requirements: Iterable[str]) -> str:
    """Return the CUDA (``13.0``) of the toolkit among a wheel's requirements, "" where none is for Linux on x86-64.

    Lines that are no requirement are passed over, and toolkits that are not pinned to one release.
    """
    found = {name: cuda for name, cuda in map(_toolkit, requirements) if cuda}
    return next((found[name] for name in sorted(found)), "")


def _toolkit(line: str) -> tuple[str, str]:
    """Return the name and the CUDA of a requirement that is a toolkit, two empty texts for any other."""
    requirement = as_requirement(line)
    name = canonicalize_name(requirement.name) if requirement else ""
    if not requirement or not _TOOLKIT.fullmatch(name) or not applies(requirement, _TARGET):
        return "", ""
    pinned = [one.version.removesuffix(".*") for one in requirement.specifier if one.operator == "=="]
    numbers = Version(pinned[0]).release if pinned else ()
    return name, f"{numbers[0]}.{numbers[1]}" if len(numbers) > 1 else ""


def pythons_in(file_names: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the Pythons that wheels for Linux on x86-64 are for: with the global lock, and the free-threaded ones.

    ``("3.13", "3.14"), ("3.14t",)``, lowest first. Names that are no wheel's are passed over, and other platforms'.
    """
    found = {python for name in file_names for python in _pythons(name)}
    locked = sorted((one for one in found if not one.endswith("t")), key=_minor)
    return tuple(locked), tuple(sorted(found - {*locked}, key=_minor))


def is_for_linux(file_name: str) -> bool:
    """Say whether a file is a wheel for CPython 3 on Linux, x86-64."""
    return bool(_pythons(file_name))


def _pythons(file_name: str) -> set[str]:
    name = WheelName.parse(file_name)
    return {
        f"3.{match['minor']}" + ("t" if tag.abi.endswith("t") else "")
        for tag in (name.tags if name else ())
        if (match := _CPYTHON.fullmatch(tag.interpreter)) and _LINUX.fullmatch(tag.platform)
    }


def _minor(python: str) -> int:
    return int(python.removesuffix("t").split(".")[1])
