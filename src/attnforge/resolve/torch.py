"""Which Python, PyTorch and CUDA."""

from __future__ import annotations

from collections.abc import Sequence

from attnforge.errors import RequestError
from attnforge.knowledge.redist import pinned_release
from attnforge.knowledge.toolchains import pypi_toolchain
from attnforge.knowledge.torch import TorchRelease, default_torch, find_torch, torch_releases
from attnforge.model.host import Host
from attnforge.model.request import Request
from attnforge.resolve.decisions import Notes


def choose_torch(request: Request, host: Host, notes: Notes) -> TorchRelease:
    """Return the PyTorch to build for: the one asked for, the one installed here, else the one that was proven."""
    if request.torch:
        release = find_torch(request.torch)
        notes.decide("torch", release.version, "asked for")
        return release
    installed = host.torch.split("+")[0]
    known = {release.version: release for release in torch_releases()}
    if installed in known:
        notes.decide("torch", installed, "installed in this environment")
        return known[installed]
    release = default_torch()
    rejected = [(other, "name it with --torch") for other in reversed(known) if other != release.version][:3]
    notes.decide("torch", release.version, "the release that these wheels were last checked on a GPU with", rejected)
    return release


def choose_python(request: Request, release: TorchRelease, host: Host, notes: Notes) -> str:
    """Return the Python minor; RequestError if that PyTorch has no build for it."""
    asked = ".".join(request.python.split(".")[:2])
    if not asked:
        return default_python(release.pythons, host, notes)
    if asked not in release.pythons:
        raise RequestError(
            f"PyTorch {release.version} has no build for Python {asked}",
            why=f"it is built for {', '.join(release.pythons)}",
            hint=f"--python {nearest(asked, release.pythons)}",
        )
    notes.decide("python", asked, "asked for")
    return asked


def default_python(offered: Sequence[str], host: Host, notes: Notes) -> str:
    """Return the Python to build for where none is asked for: the one that runs attnforge, if it is offered."""
    own = ".".join(host.python.split(".")[:2])
    wanted = own if own in offered else offered[len(offered) // 2]
    notes.decide("python", wanted, "the Python that runs attnforge" if wanted == own else "middle of torch's")
    return wanted


def choose_cuda(request: Request, release: TorchRelease, host: Host, notes: Notes) -> str:
    """Return the CUDA minor that torch is built with; RequestError if that PyTorch has no such build."""
    if request.cuda:
        wanted = read_cuda(request.cuda, release.cuda)
        if wanted not in release.cuda:
            raise RequestError(
                f"PyTorch {release.version} has no build with CUDA {wanted}",
                why=f"it is built with {', '.join(release.cuda)}",
                hint=_nearest_torch(wanted, release),
                link="https://github.com/pytorch/pytorch/blob/main/RELEASE.md",
            )
        notes.decide("cuda", wanted, "asked for", _others(release, wanted, "not asked for"))
        return wanted
    wanted, reason = own_cuda(release, host)
    notes.decide("cuda", wanted, reason, _others(release, wanted, "name it with --cuda"))
    return wanted


def own_cuda(release: TorchRelease, host: Host) -> tuple[str, str]:
    """Return the CUDA to build for where none is asked for, and why.

    One that this machine has a toolkit of is taken before another toolkit is fetched from NVIDIA.
    """
    published = release.index_cuda, f"torch {release.version} on the package index is built with it"
    if pypi_toolchain(release.index_cuda) or _has_toolkit(release.index_cuda, host):
        return published
    own = next((cuda for cuda in reversed(release.cuda) if _has_toolkit(cuda, host)), "")
    if own:
        return own, "this machine has a toolkit of it"
    if not _compilable(release.index_cuda, host):
        newest = newest_compilable(release.cuda, host)
        if newest:
            return newest, "a toolchain for it is available"
    return published


def read_cuda(text: str, offered: Sequence[str]) -> str:
    """Read ``13.0``, ``13.0.1``, ``cu130`` or ``130``; ``13`` is the newest of that major that is offered."""
    digits = text.lower().removeprefix("cu")
    if "." in digits:
        return ".".join(digits.split(".")[:2])
    if len(digits) == 3:
        return f"{digits[:2]}.{digits[2]}"
    return next((cuda for cuda in reversed(offered) if cuda.split(".")[0] == digits), f"{digits}.0")


def _compilable(cuda: str, host: Host) -> bool:
    fetched = pypi_toolchain(cuda) or pinned_release(cuda, host.machine)
    return fetched is not None or _has_toolkit(cuda, host)


def _has_toolkit(cuda: str, host: Host) -> bool:
    return any(toolkit.cuda == cuda for toolkit in host.toolkits)


def newest_compilable(offered: Sequence[str], host: Host) -> str:
    """Return the last of these CUDA versions, oldest first, that a toolchain is at hand for; "" where there is none."""
    return next((cuda for cuda in reversed(offered) if _compilable(cuda, host)), "")


def _others(release: TorchRelease, wanted: str, why: str) -> list[tuple[str, str]]:
    return [(other, why) for other in release.cuda if other != wanted]


def _nearest_torch(cuda: str, release: TorchRelease) -> str:
    having = [other.version for other in torch_releases() if cuda in other.cuda]
    own = f"--cuda {nearest(cuda, release.cuda)}"
    return f"{own}, or --torch {having[-1]} --cuda {cuda}" if having else own


def nearest(wanted: str, offered: Sequence[str]) -> str:
    """Return the version of two numbers that is nearest to ``wanted``."""

    def distance(other: str) -> tuple[int, int]:
        one, two = _numbers(wanted), _numbers(other)
        return abs(one[0] - two[0]), abs(one[1] - two[1])

    return min(offered, key=distance)


def _numbers(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major) if major.isdecimal() else 0, int(minor) if minor.isdecimal() else 0
