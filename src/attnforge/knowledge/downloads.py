"""The sizes of downloads for a build, as far as they are known without a request to a server."""

from __future__ import annotations

from functools import cache

from packaging.version import Version

from attnforge.knowledge.data import load
from attnforge.model.base import Value

_MB = 10**6


class _Torch(Value):
    version: str
    cuda: str
    wheel: int
    libraries: int


class _Table(Value):
    torch: tuple[_Torch, ...]
    toolchains: dict[str, int]
    archives: dict[str, int]


@cache
def _table() -> _Table:
    return load("downloads.toml", _Table)


def torch_bytes(version: str, cuda: str, pythons: int = 1) -> int:
    """Return about how many bytes PyTorch has with all that it requires, its own wheel once for each Python.

    Libraries of CUDA are most of it. So one that is not in the table has the figure of the nearest release with the
    same CUDA, else that of the nearest release.
    """
    row = min(_table().torch, key=lambda row: (row.cuda != cuda, _distance(row.version, version)))
    return (row.wheel * pythons + row.libraries) * _MB


def _distance(one: str, other: str) -> int:
    """Return how many minors are between two releases, all majors being far apart."""
    major, minor = (a - b for a, b in zip(Version(one).release[:2], Version(other).release[:2], strict=True))
    return abs(1000 * major + minor)


def toolchain_bytes(cuda: str) -> int:
    """Return about how many bytes the packages of a CUDA minor's toolchain have, 0 where that is not known."""
    return _table().toolchains.get(cuda, 0) * _MB


def archive_bytes(sha256: str) -> int:
    """Return the size of a source archive that a recipe pins, 0 for any other."""
    return _table().archives.get(sha256, 0)
