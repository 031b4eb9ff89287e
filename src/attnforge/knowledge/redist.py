"""CUDA toolkits that NVIDIA publishes as one archive for each component."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from packaging.version import Version

from attnforge.knowledge.data import load
from attnforge.model.base import Value
from attnforge.model.plan import ToolkitArchive

# NVIDIA's names of platforms, by what uname says. linux-aarch64 there is only Tegra.
_PLATFORMS = {"x86_64": "linux-x86_64", "aarch64": "linux-sbsa"}


class CudaRelease(Value):
    """What a build reads of one release (``12.8.1``) on one platform.

    ``manifest`` is the SHA-256 of NVIDIA's manifest of the release, "" where it is not known.
    """

    version: str
    manifest: str
    archives: tuple[ToolkitArchive, ...]

    @property
    def cuda(self) -> str:
        """``12.8``."""
        return minor_of(self.version)

    @property
    def nvcc(self) -> str:
        """The build version that its compiler prints: ``12.8.93``."""
        return next(archive.version for archive in self.archives if archive.component == "cuda_nvcc")


class _Archive(Value):
    component: str
    platform: str
    version: str
    size: int
    sha256: str


class _Release(Value):
    version: str
    manifest: str
    source: str
    archives: tuple[_Archive, ...]


class _Read(Value):
    components: tuple[str, ...]
    since: str


class _Table(Value):
    base_url: str
    license: str
    license_url: str
    manifest_source: str
    reads: tuple[_Read, ...]
    manifests: dict[str, str]
    release: tuple[_Release, ...]


@cache
def _table() -> _Table:
    return load("redist.toml", _Table)


def minor_of(version: str) -> str:
    """Return ``12.8`` of ``12.8.1``."""
    return ".".join(version.split(".")[:2])


def base_url() -> str:
    """Return the URL below which NVIDIA has manifests and archives."""
    return _table().base_url


def license_name() -> tuple[str, str]:
    """Return the name of the license of what is fetched, and where it is."""
    return _table().license, _table().license_url


def platform_of(machine: str) -> str:
    """Return NVIDIA's name of a machine's platform, "" for one that it has no toolkit for."""
    return _PLATFORMS.get(machine, "")


def components_of(version: str) -> tuple[tuple[str, ...], ...]:
    """Return the components of a release that a build reads, each with all names that it may have."""
    return tuple(read.components for read in _table().reads if Version(read.since) <= Version(version))


def archive_path(component: str, platform: str, version: str) -> str:
    """Return where an archive is below the base URL."""
    return f"{component}/{platform}/{component}-{platform}-{version}-archive.tar.xz"


def pinned_releases(machine: str) -> tuple[CudaRelease, ...]:
    """Return the releases whose archives are known by hash, oldest first; none for a machine without a platform."""
    platform = platform_of(machine)
    return tuple(_on(release, platform) for release in _table().release) if platform else ()


def _on(release: _Release, platform: str) -> CudaRelease:
    archives = tuple(
        ToolkitArchive(
            component=archive.component,
            version=archive.version,
            path=archive_path(archive.component, platform, archive.version),
            size=archive.size,
            sha256=archive.sha256,
        )
        for archive in release.archives
        if archive.platform == platform
    )
    return CudaRelease(version=release.version, manifest=release.manifest, archives=archives)


def pinned_release(version: str, machine: str) -> CudaRelease | None:
    """Return a release (``12.8.1``), or the newest of a CUDA minor (``12.8``), that is pinned; None for any other."""
    found = [release for release in pinned_releases(machine) if version in (release.version, release.cuda)]
    return found[-1] if found else None


def known_manifests() -> Mapping[str, str]:
    """Return the releases of which only the SHA-256 of the manifest is known."""
    return _table().manifests


def release_to_name(cuda: str) -> str:
    """Return the release of a CUDA minor to name in a hint: a pinned one, one known by manifest, else X.Y.1."""
    pinned = [release.version for release in _table().release if minor_of(release.version) == cuda]
    listed = [version for version in _table().manifests if minor_of(version) == cuda]
    return max(pinned or listed, key=Version, default=f"{cuda}.1")
