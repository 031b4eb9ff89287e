"""Which PyTorch exists with which CUDA for which Python."""

from __future__ import annotations

from functools import cache

from packaging.version import InvalidVersion, Version

from attnforge.errors import RequestError
from attnforge.knowledge.data import load
from attnforge.model.base import Value


class TorchRelease(Value):
    """One PyTorch version: the toolkits it is built with, the one of its build on the package index, the Pythons.

    ``cxx`` is the C++ standard that its headers need at least (17, 20).
    """

    version: str
    cuda: tuple[str, ...]
    index_cuda: str
    pythons: tuple[str, ...]
    cxx: int = 17


class _Row(Value):
    versions: tuple[str, ...]
    cuda: tuple[str, ...]
    index_cuda: str
    pythons: tuple[str, ...]
    cxx: int = 17


class _Table(Value):
    default: str
    default_source: str
    torch: tuple[_Row, ...]


@cache
def torch_releases() -> tuple[TorchRelease, ...]:
    """Return every PyTorch that is known, oldest first."""
    releases = (
        TorchRelease(version=version, **row.model_dump(exclude={"versions"}))
        for row in load("torch.toml", _Table).torch
        for version in row.versions
    )
    return tuple(sorted(releases, key=lambda release: Version(release.version)))


def default_torch() -> TorchRelease:
    """Return the release to build for where neither the user nor the machine says."""
    return find_torch(load("torch.toml", _Table).default)


def find_torch(text: str) -> TorchRelease:
    """Return the release for ``2.11.0``, or the newest patch of ``2.11``; RequestError that names the nearest ones."""
    try:
        wanted = Version(text)
    except InvalidVersion:
        raise RequestError(f"{text!r} is not a PyTorch version", hint="write it as --torch 2.11.0") from None
    releases = torch_releases()
    same_minor = [release for release in releases if Version(release.version).release[:2] == wanted.release[:2]]
    if len(wanted.release) == 2 and same_minor:
        return same_minor[-1]
    exact = [release for release in same_minor if Version(release.version) == Version(wanted.public)]
    if exact:
        return exact[0]
    nearest = same_minor or sorted(releases, key=lambda release: _distance(Version(release.version), wanted))[:3]
    raise RequestError(
        f"PyTorch {text} is not known",
        why="known: " + ", ".join(release.version for release in releases),
        hint="nearest: " + ", ".join(f"--torch {release.version}" for release in nearest),
    )


def _distance(one: Version, other: Version) -> tuple[int, int]:
    return abs(one.major - other.major), abs(one.minor - other.minor)
