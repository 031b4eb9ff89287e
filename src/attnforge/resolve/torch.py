"""Which Python, PyTorch and CUDA."""

from __future__ import annotations

from collections.abc import Sequence

from attnforge.errors import RequestError
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
    own = ".".join(host.python.split(".")[:2])
    asked = ".".join(request.python.split(".")[:2])
    wanted = asked or (own if own in release.pythons else release.pythons[len(release.pythons) // 2])
    if wanted not in release.pythons:
        raise RequestError(
            f"PyTorch {release.version} has no build for Python {wanted}",
            why=f"it is built for {', '.join(release.pythons)}",
            hint=f"--python {_nearest(wanted, release.pythons)}",
        )
    reason = (
        "asked for" if request.python else "the Python that runs attnforge" if wanted == own else "middle of torch's"
    )
    notes.decide("python", wanted, reason)
    return wanted


def choose_cuda(request: Request, release: TorchRelease, host: Host, notes: Notes) -> str:
    """Return the CUDA minor that torch is built with; RequestError if that PyTorch has no such build."""
    if request.cuda:
        wanted = _read_cuda(request.cuda, release)
        if wanted not in release.cuda:
            raise RequestError(
                f"PyTorch {release.version} has no build with CUDA {wanted}",
                why=f"it is built with {', '.join(release.cuda)}",
                hint=_nearest_torch(wanted, release),
                link="https://github.com/pytorch/pytorch/blob/main/RELEASE.md",
            )
        notes.decide("cuda", wanted, "asked for", _others(release, wanted, "not asked for"))
        return wanted
    wanted = release.index_cuda
    if not _compilable(wanted, host):
        wanted = next((cuda for cuda in reversed(release.cuda) if _compilable(cuda, host)), wanted)
    reason = (
        f"torch {release.version} on the package index is built with it"
        if wanted == release.index_cuda
        else "a toolchain for it is at hand"
    )
    notes.decide("cuda", wanted, reason, _others(release, wanted, "name it with --cuda"))
    return wanted


def _read_cuda(text: str, release: TorchRelease) -> str:
    """Read ``13.0``, ``13.0.1``, ``cu130`` or ``130``; ``13`` is the newest of that major that torch is built with."""
    digits = text.lower().removeprefix("cu")
    if "." in digits:
        return ".".join(digits.split(".")[:2])
    if len(digits) == 3:
        return f"{digits[:2]}.{digits[2]}"
    return next((cuda for cuda in reversed(release.cuda) if cuda.split(".")[0] == digits), f"{digits}.0")


def _compilable(cuda: str, host: Host) -> bool:
    return pypi_toolchain(cuda) is not None or any(toolkit.cuda == cuda for toolkit in host.toolkits)


def _others(release: TorchRelease, wanted: str, why: str) -> list[tuple[str, str]]:
    return [(other, why) for other in release.cuda if other != wanted]


def _nearest_torch(cuda: str, release: TorchRelease) -> str:
    having = [other.version for other in torch_releases() if cuda in other.cuda]
    own = f"--cuda {_nearest(cuda, release.cuda)}"
    return f"{own}, or --torch {having[-1]} --cuda {cuda}" if having else own


def _nearest(wanted: str, offered: Sequence[str]) -> str:
    def distance(other: str) -> tuple[int, int]:
        one, two = _numbers(wanted), _numbers(other)
        return abs(one[0] - two[0]), abs(one[1] - two[1])

    return min(offered, key=distance)


def _numbers(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major or 0), int(minor or 0) if minor.isdecimal() else 0
