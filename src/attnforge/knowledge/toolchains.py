"""Which CUDA toolchains can be installed from the package index, and of which exact packages."""

from __future__ import annotations

import re
from functools import cache

from pydantic import field_validator

from attnforge.knowledge.data import load
from attnforge.model.base import Value

_PIN = re.compile(r"[a-z0-9-]+==\d+(\.\d+)+")


class ToolchainPackages(Value):
    """One CUDA minor (``13.0``): the packages that are its toolchain together, and what they make.

    ``nvcc`` is the build version that its compiler prints, ``home`` the folder under the installed packages that is
    the toolkit's root, ``source`` where the set comes from.
    """

    cuda: str
    nvcc: str
    home: str
    packages: tuple[str, ...]
    source: str

    @field_validator("packages")
    @classmethod
    def _pinned(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        loose = [package for package in value if not _PIN.fullmatch(package)]
        if loose:
            raise ValueError(f"not pinned to one version: {', '.join(loose)}")
        return value


class _Table(Value):
    toolchain: tuple[ToolchainPackages, ...]


@cache
def pypi_toolchains() -> tuple[ToolchainPackages, ...]:
    """Return every complete toolchain of the package index."""
    return load("toolchains.toml", _Table).toolchain


def pypi_toolchain(cuda: str) -> ToolchainPackages | None:
    """Return the packages of a CUDA minor such as ``13.0``, or None where the index has no whole toolchain of it."""
    return next((toolchain for toolchain in pypi_toolchains() if toolchain.cuda == cuda), None)
