"""Which PyTorch exists with which CUDA for which Python."""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterable, Sequence
from functools import cache

from packaging.version import Version

from attnforge.errors import RequestError
from attnforge.knowledge.data import load
from attnforge.model.base import Value
from attnforge.model.versions import as_version, shortened

_BUILDS = "https://pytorch.org/get-started/locally/"

_CUDA = re.compile(r"cu(?P<major>\d\d)(?P<minor>\d)")

# Builds of PyTorch for other devices, by the beginning of their local version: https://download.pytorch.org/whl/
_OTHER_DEVICES = {"cpu": "the CPU only", "rocm": "AMD GPUs", "xpu": "Intel GPUs", "cxx11": "the CPU only"}


class TorchRelease(Value):
    """One PyTorch version: the toolkits it is built with, the one of its build on the package index, the Pythons.

    ``pythons`` have the global interpreter lock (``3.14``), ``free_threaded`` are those without it (``3.14t``). ``cxx``
    is the C++ standard that its headers need at least (17, 20). ``read_from`` is the wheel that this was read from,
    "" for a release of the table.
    """

    version: str
    cuda: tuple[str, ...]
    index_cuda: str
    pythons: tuple[str, ...]
    free_threaded: tuple[str, ...] = ()
    cxx: int = 17
    read_from: str = ""


class _Row(Value):
    versions: tuple[str, ...]
    cuda: tuple[str, ...]
    index_cuda: str
    pythons: tuple[str, ...]
    free_threaded: tuple[str, ...] = ()
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


def torch_releases_with(read: Iterable[TorchRelease]) -> tuple[TorchRelease, ...]:
    """Return every PyTorch that is known, oldest first, and those that were read besides."""
    return tuple(sorted({*torch_releases(), *read}, key=lambda release: Version(release.version)))


def find_torch(text: str, read: Iterable[TorchRelease] = ()) -> TorchRelease:
    """Return the release for ``2.11.0``, or the newest patch of ``2.11``; RequestError that names the nearest ones.

    ``read`` are releases that the table does not have. A local version, ``+cu128``, says nothing of the release:
    ``torch_cuda`` reads it.
    """
    wanted = as_version(text)
    if wanted is None:
        raise RequestError(f"{shortened(text)!r} is not a PyTorch version", hint="write it as --torch 2.11.0")
    releases = torch_releases_with(read)
    same_minor = [release for release in releases if Version(release.version).release[:2] == wanted.release[:2]]
    if len(wanted.release) == 2 and same_minor and not wanted.is_prerelease:
        return same_minor[-1]
    exact = [release for release in same_minor if Version(release.version) == Version(wanted.public)]
    if exact:
        return exact[0]
    near = ", ".join(f"--torch {release.version}" for release in _neighbours(wanted, same_minor or releases))
    raise RequestError(
        f"PyTorch {text} is not known",
        why="known: " + ", ".join(release.version for release in releases),
        hint=f"nearest: {near}",
    )


def known_torch(text: str) -> TorchRelease | None:
    """Return the release of a version that is known, whatever its local part says; None for any other."""
    version = as_version(text)
    public = Version(version.public) if version else None
    return next((release for release in torch_releases() if Version(release.version) == public), None)


def is_listed(text: str) -> bool:
    """Say whether the table has the release that a version means: ``2.11.0``, ``2.11``, ``2.11.0+cu128``."""
    try:
        return bool(find_torch(text))
    except RequestError:
        return False


def cxx_of(text: str) -> int:
    """Return the C++ standard that the headers of a PyTorch need at least (17, 20).

    One that is not in the table needs what the release before it does: the standard has never been lowered.
    """
    wanted = Version(text)
    before = [release for release in torch_releases() if Version(release.version) <= wanted]
    return before[-1].cxx if before else torch_releases()[0].cxx


def _neighbours(wanted: Version, releases: Sequence[TorchRelease]) -> Sequence[TorchRelease]:
    """Return the releases just below and just above a version, the one below first."""
    at = bisect([Version(release.version) for release in releases], wanted)
    return releases[max(at - 1, 0) : at + 1]


def torch_cuda(text: str, read: Iterable[TorchRelease] = ()) -> str:
    """Return the CUDA (``12.8``) that a version's local part says, ``2.11.0+cu128``; "" for a version without one.

    RequestError for a build without CUDA (``+cpu``, ``+rocm6.4``), for a local part that is no CUDA, and for a CUDA
    that PyTorch publishes no build of this release with.
    """
    version = as_version(text)
    local = version.local if version else None
    if not local:
        return ""
    release = find_torch(text, read)
    cuda = cuda_of_local(local)
    if not cuda:
        raise _no_cuda(text, local, release)
    if cuda not in release.cuda:
        raise RequestError(
            f"PyTorch {release.version} has no build with CUDA {cuda}",
            why=f"it is built with {', '.join(release.cuda)}",
            hint=f"--torch {release.version}, or another of these: --torch {release.version}+{_tag(release.cuda[-1])}",
            link=_BUILDS,
        )
    return cuda


def cuda_of_local(local: str) -> str:
    """Return the CUDA (``12.8``) of a local version, ``cu128``; "" for any other."""
    match = _CUDA.fullmatch(local)
    return f"{match['major']}.{match['minor']}" if match else ""


def _no_cuda(text: str, local: str, release: TorchRelease) -> RequestError:
    devices = [device for prefix, device in _OTHER_DEVICES.items() if local.startswith(prefix)]
    tags = ", ".join(f"+{_tag(cuda)}" for cuda in release.cuda)
    return RequestError(
        f"PyTorch {text} is no build with CUDA" if devices else f"the build of PyTorch {text} is not known",
        why=f"+{local} is for {devices[0]}, and wheels are for NVIDIA GPUs" if devices else f"known builds: {tags}",
        hint=f"--torch {release.version} for its build with CUDA {release.index_cuda}, or one of {tags}",
        link=_BUILDS,
    )


def _tag(cuda: str) -> str:
    return "cu" + cuda.replace(".", "")
