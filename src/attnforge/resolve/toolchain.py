"""Which CUDA toolkit."""

from __future__ import annotations

from collections.abc import Callable

from attnforge.errors import HostError, RequestError
from attnforge.knowledge.host_compilers import (
    major_version,
)
from attnforge.knowledge.redist import CudaRelease, pinned_release, pinned_releases, release_to_name
from attnforge.knowledge.toolchains import ToolchainPackages, pypi_toolchain
from attnforge.knowledge.torch import torch_releases
from attnforge.model.host import Host, Toolkit
from attnforge.model.plan import ToolchainPin
from attnforge.resolve.decisions import Notes

SYSTEM, PYPI, NVIDIA = "system", "pypi", "nvidia"

_PINNED = f"{NVIDIA}=="
_BUILT_ON = "x86_64"  # what wheels are built for and on
_MINOR_LINK = "https://github.com/Dao-AILab/flash-attention/issues/2783"


def choose_toolkit(
    cuda: str, origin: str, host: Host, notes: Notes, fetched: CudaRelease | None = None
) -> ToolchainPin:
    """Return the toolkit for a PyTorch of that CUDA, without a host compiler yet.

    In this order: a toolkit that CUDA_HOME names, this machine's of exactly that CUDA, the package index's, NVIDIA's,
    and the nearest one of the same major, of this machine before NVIDIA's. ``fetched`` is NVIDIA's release that
    ``origin`` names (``asked_release_version``). PyTorch refuses an nvcc of another CUDA major and warns at another
    minor (FA#2783). Raises HostError where there is none, or where the one asked for is incomplete.
    """
    check_origin(origin)
    pin = _chosen(cuda, origin.partition("==")[0], host, notes, fetched)
    if pin is None:
        incomplete = _same_major(cuda, host) if not origin else []
        raise _incomplete(incomplete[0]) if incomplete else _missing(cuda, origin, host)
    _warn_of_minor(cuda, pin, notes)
    if not origin:
        _warn_of_passed_over(cuda, host, notes)
    return pin


def check_origin(origin: str) -> None:
    """Raise RequestError for what ``--toolchain`` does not take, "" being that nothing is asked for."""
    if origin not in ("", SYSTEM, PYPI, NVIDIA) and not asked_release_version(origin):
        known = " or ".join(f"--toolchain {name}" for name in (SYSTEM, PYPI, NVIDIA))
        raise RequestError(f"there is no toolchain {origin!r}", hint=known)


def asked_release_version(origin: str) -> str:
    """Return the release that ``nvidia==12.8.1`` names, "" where a request names none; RequestError for no version."""
    if not origin.startswith(_PINNED):
        return ""
    version = origin.removeprefix(_PINNED)
    parts = version.split(".")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise RequestError(
            f"{version!r} is no release of a CUDA toolkit",
            why="NVIDIA's releases have three numbers",
            hint="write it as --toolchain nvidia==12.8.1",
        )
    return version


def _chosen(cuda: str, origin: str, host: Host, notes: Notes, fetched: CudaRelease | None) -> ToolchainPin | None:
    """Return the first toolchain there is, in the order of preference."""
    own = [kit for kit in _same_major(cuda, host) if origin == SYSTEM or (not origin and _usable(kit))]
    exact = [toolkit for toolkit in own if toolkit.cuda == cuda and not toolkit.lacks]
    packages = pypi_toolchain(cuda) if origin in ("", PYPI) else None
    release = (fetched or pinned_release(cuda, host.machine)) if origin in ("", NVIDIA) else None
    if own and own[0].named_by:
        return _of_system(own[0], f"{own[0].named_by} names it", notes)
    if exact:
        return _of_system(exact[0], "this machine has exactly that CUDA", notes, pypi_toolchain(cuda))
    if packages:
        return _of_index(packages, host, notes)
    if release:
        return _of_nvidia(release, cuda, host, notes, asked=fetched is not None)
    if own:
        return _of_system(own[0], f"of this machine's toolkits it is the nearest to CUDA {cuda}", notes)
    near = _nearest_release(cuda, host) if not origin else None
    return _of_nvidia(near, cuda, host, notes) if near else None


def _same_major(cuda: str, host: Host) -> list[Toolkit]:
    """Return this machine's toolkits of a CUDA major: one that a variable names first, then the nearest minor.

    Of two that are as near the newer is first. One that lacks something comes last, if no variable names it.
    """
    same = [toolkit for toolkit in host.toolkits if major_version(toolkit.cuda) == major_version(cuda)]
    return sorted(same, key=lambda kit: (not kit.named_by, bool(kit.lacks), _distance(kit.cuda, cuda)))


def _usable(toolkit: Toolkit) -> bool:
    """Say whether a toolkit may be chosen unasked. A variable that names it asks for it."""
    return not toolkit.lacks or bool(toolkit.named_by)


def _distance(one: str, other: str) -> tuple[int, int]:
    """Return how far two minors of one CUDA major are apart, so that the newer of two as near comes first."""
    minors = [int(text.split(".")[1]) for text in (one, other)]
    return abs(minors[0] - minors[1]), -minors[0]


def _nearest_release(cuda: str, host: Host) -> CudaRelease | None:
    same = [one for one in pinned_releases(host.machine) if major_version(one.cuda) == major_version(cuda)]
    nearest = min(same, key=lambda release: _distance(release.cuda, cuda), default=None)
    return pinned_release(nearest.cuda, host.machine) if nearest else None


def _of_system(toolkit: Toolkit, reason: str, notes: Notes, packages: ToolchainPackages | None = None) -> ToolchainPin:
    if toolkit.lacks:
        raise _incomplete(toolkit)
    rejected = [(PYPI, "the machine's own needs no download")] if packages else []
    notes.decide("toolchain", f"{SYSTEM}: nvcc {toolkit.nvcc}", reason, rejected)
    return ToolchainPin(origin=SYSTEM, cuda=toolkit.cuda, nvcc=toolkit.nvcc)


def _of_index(packages: ToolchainPackages, host: Host, notes: Notes) -> ToolchainPin:
    reason = f"CUDA {packages.cuda} is on the package index" + (
        "" if host.toolkits else " and this machine has no nvcc"
    )
    notes.decide("toolchain", f"{PYPI}: nvcc {packages.nvcc}", reason, _others(packages.cuda, host))
    return ToolchainPin(origin=PYPI, cuda=packages.cuda, nvcc=packages.nvcc, packages=packages.packages)


def _of_nvidia(release: CudaRelease, cuda: str, host: Host, notes: Notes, *, asked: bool = False) -> ToolchainPin:
    if major_version(release.cuda) != major_version(cuda):
        raise RequestError(
            f"CUDA {release.version} can't compile for a PyTorch that is built with CUDA {cuda}",
            why="PyTorch refuses an nvcc of another major",
            hint=f"--toolchain {NVIDIA}, which takes a release of CUDA {cuda}",
            link=_MINOR_LINK,
        )
    megabytes = round(sum(archive.size for archive in release.archives) / 1e6)
    reason = "asked for" if asked else "the package index has no nvcc of it"
    told = f"{reason}: {len(release.archives)} archives of {megabytes} MB, fetched once"
    notes.decide("toolchain", f"{NVIDIA}: CUDA {release.version}, nvcc {release.nvcc}", told, _others(cuda, host))
    return ToolchainPin(
        origin=NVIDIA,
        cuda=release.cuda,
        nvcc=release.nvcc,
        release=release.version,
        manifest=release.manifest,
        archives=release.archives,
    )


def _others(cuda: str, host: Host) -> list[tuple[str, str]]:
    return [(f"{SYSTEM}: nvcc {kit.nvcc}", _why_not(kit, cuda)) for kit in host.toolkits]


def _why_not(toolkit: Toolkit, cuda: str) -> str:
    if toolkit.cuda != cuda:
        return f"is not CUDA {cuda}"
    return f"lacks {', '.join(toolkit.lacks)}" if toolkit.lacks else "another one was asked for"


def _warn_of_minor(cuda: str, pin: ToolchainPin, notes: Notes) -> None:
    if pin.cuda != cuda:
        notes.warn(
            "toolchain",
            f"torch is built with CUDA {cuda}, the chosen nvcc is {pin.nvcc}: PyTorch takes the same major",
            hint=_exact_hint(cuda, pin),
            link=_MINOR_LINK,
        )


def _warn_of_passed_over(cuda: str, host: Host, notes: Notes) -> None:
    """Warn of a toolkit that a variable names and that PyTorch of this CUDA can't be compiled for with."""
    for kit in host.toolkits:
        major = major_version(kit.cuda)
        if kit.named_by and major != major_version(cuda):
            newest = [one for one in torch_releases() if major_version(one.index_cuda) == major]
            notes.warn(
                "toolchain",
                f"{kit.named_by} names nvcc {kit.nvcc}, which is not used: torch is built with CUDA {cuda}, and "
                "PyTorch refuses an nvcc of another major",
                hint=f"a PyTorch of CUDA {major}: --torch {newest[-1].version}" if newest else "",
                link=_MINOR_LINK,
            )


def _exact_hint(cuda: str, pin: ToolchainPin) -> str:
    if pin.origin == SYSTEM:
        return f"set CUDA_HOME to a toolkit of CUDA {cuda}, or unset it and choose --toolchain {NVIDIA}"
    return f"set CUDA_HOME to a toolkit of CUDA {cuda}, or name a release: --toolchain {_PINNED}{release_to_name(cuda)}"


def _incomplete(toolkit: Toolkit) -> HostError:
    named = f"unset {toolkit.named_by}" if toolkit.named_by else f"choose --toolchain {NVIDIA}"
    return HostError(
        f"the CUDA toolkit in {toolkit.home} is incomplete",
        why=f"it lacks {', '.join(toolkit.lacks)}",
        hint=f"install what it lacks (the component is in parentheses), or {named} to have a whole one fetched",
    )


def _missing(cuda: str, origin: str, host: Host) -> HostError:
    seen = ", ".join(f"{toolkit.cuda} in {toolkit.home}" for toolkit in host.toolkits) or "no nvcc"
    if origin == PYPI:
        return HostError(
            f"the package index has no whole toolchain of CUDA {cuda}",
            why="for CUDA 12 it has ptxas, libnvvm and headers but no nvcc",
            hint=f"--toolchain {NVIDIA}, or --toolchain {SYSTEM} on a machine with that CUDA toolkit",
        )
    if origin == NVIDIA:
        return _not_pinned(cuda, host)
    fetched = "" if origin == SYSTEM else f", and none of CUDA {cuda} can be fetched"
    install = (
        f"install the CUDA {cuda} toolkit (NVIDIA's images nvidia/cuda:{cuda}.*-devel-* have it) and set CUDA_HOME"
    )
    return HostError(
        f"no nvcc of CUDA {major_version(cuda)} is on this machine{fetched}",
        why=f"this machine has {seen}; PyTorch refuses an nvcc of another major",
        hint=f"{install}, or {_other_way(cuda, origin, host)}",
        link=_MINOR_LINK,
    )


def _other_way(cuda: str, origin: str, host: Host) -> str:
    """Return how to build without installing a toolkit."""
    if origin == SYSTEM and pinned_releases(host.machine):
        return f"leave out --toolchain {SYSTEM}: what the build needs of one is then fetched"
    return "choose a torch built with CUDA 13: --torch 2.11.0" if major_version(cuda) < 13 else "build on x86_64"


def _not_pinned(cuda: str, host: Host) -> HostError:
    pinned = pinned_releases(host.machine)
    if not pinned:
        return HostError(
            f"NVIDIA has no CUDA toolkit for {host.machine}",
            hint=f"--toolchain {SYSTEM}, with CUDA_HOME set to a toolkit",
        )
    return HostError(
        f"no CUDA {cuda} of NVIDIA's is pinned",
        why=f"pinned are {', '.join(release.version for release in pinned)}",
        hint=f"name the release, whose manifest is then fetched: --toolchain {_PINNED}{release_to_name(cuda)}",
    )


def another_compiler(cuda: str, torch_cuda: str, will_do: Callable[[str], bool]) -> str:
    """Return how to get a compiler whose CUDA ``will_do`` with a PyTorch of ``torch_cuda``, where that is enough.

    ``cuda`` is that of the compiler that is chosen. "" where it is PyTorch's, so that another PyTorch is needed, and
    where no compiler of that major will do. PyTorch takes any minor of its CUDA's major.
    """
    if cuda == torch_cuda:
        return ""
    if will_do(torch_cuda):
        return _instead(torch_cuda, NVIDIA)
    pinned = dict.fromkeys(one.cuda for one in pinned_releases(_BUILT_ON))
    same = [one for one in pinned if major_version(one) == major_version(torch_cuda) and will_do(one)]
    nearest = min(same, key=lambda one: _distance(one, torch_cuda), default="")
    return _instead(nearest, f"{_PINNED}{release_to_name(nearest)}") if nearest else ""


def _instead(cuda: str, toolchain: str) -> str:
    return f"set CUDA_HOME to a toolkit of CUDA {cuda}, or unset it and choose --toolchain {toolchain}"
