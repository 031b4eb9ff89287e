"""Which Python, PyTorch and CUDA."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from attnforge.errors import RequestError
from attnforge.knowledge.host_compilers import major_version
from attnforge.knowledge.redist import pinned_release
from attnforge.knowledge.toolchains import pypi_toolchain
from attnforge.knowledge.torch import TorchRelease, default_torch, find_torch, torch_cuda, torch_releases
from attnforge.model.host import Host
from attnforge.model.request import Request
from attnforge.model.target import is_free_threaded
from attnforge.model.versions import shortened
from attnforge.resolve.decisions import Notes

_FREE_THREADING = "https://docs.python.org/3/howto/free-threading-extensions.html"
_LOCK_RETURNS = (
    "importing a module that does not declare that it runs without the global interpreter lock turns the lock on for "
    "the whole process"
)


def choose_torch(
    request: Request,
    host: Host,
    notes: Notes,
    read: Iterable[TorchRelease] = (),
    passed: Sequence[tuple[str, str]] = (),
) -> TorchRelease:
    """Return the PyTorch to build for: the one asked for, the one installed here, else the one that was proven.

    ``read`` are releases that the index has and the table of known ones does not. ``passed`` are the environments that
    were found and whose PyTorch is not used, with the reason.
    """
    if request.torch:
        release = find_torch(request.torch, read)
        notes.decide("torch", release.version, "asked for")
        tell_read((release,), notes)
        return release
    installed = host.torch.split("+")[0]
    known = {release.version: release for release in torch_releases()}
    if installed in known:
        # A build for CUDA says which; any other is refused, since it is not what the wheel would be for.
        installed_cuda(request, host)
        notes.decide("torch", installed, f"installed in this environment ({host.torch})", passed)
        return known[installed]
    release = default_torch()
    rejected = [(other, "name it with --torch") for other in reversed(known) if other != release.version][:3]
    rejected = [*passed, *rejected]
    notes.decide("torch", release.version, "the release that these wheels were last checked on a GPU with", rejected)
    if installed:
        told = f"the PyTorch {host.torch} beside attnforge is not known: the wheel is for PyTorch {release.version}"
        notes.warn("torch", told, "name the PyTorch that the wheel is for: --torch VERSION")
    return release


def tell_read(releases: Iterable[TorchRelease], notes: Notes) -> None:
    """Note each release that attnforge's table lacks, what was read of it, and where."""
    for release in releases:
        if release.read_from:
            pythons = ", ".join((*release.pythons, *release.free_threaded))
            told = f"PyTorch {release.version}: CUDA {release.index_cuda}; Python {pythons}"
            reason = f"this version of attnforge does not list it: read from {release.read_from} on the package index"
            notes.decide("torch release", told, reason)


def installed_cuda(request: Request, host: Host) -> str:
    """Return the CUDA of the PyTorch installed here, where it counts; "" where it does not say, or one is asked for.

    RequestError for a build without CUDA.
    """
    if request.torch or host.torch.split("+")[0] not in {release.version for release in torch_releases()}:
        return ""
    try:
        return torch_cuda(host.torch)
    except RequestError as error:
        what = f"the PyTorch beside attnforge is {host.torch}: {error.what}"
        raise RequestError(what, why=error.why, hint=error.hint, link=error.link) from None


def choose_python(request: Request, release: TorchRelease, host: Host, notes: Notes) -> str:
    """Return the Python minor; RequestError if that PyTorch has no build for it."""
    asked = read_python(request.python)
    if not asked:
        return default_python(release.pythons, host, notes)
    offered = release.free_threaded if is_free_threaded(asked) else release.pythons
    if asked not in offered:
        raise RequestError(
            f"PyTorch {release.version} has no build for Python {shortened(asked)}",
            why=f"it is built for {', '.join((*release.pythons, *release.free_threaded))}",
            hint=f"--python {nearest(asked, offered or release.pythons)}",
        )
    notes.decide("python", asked, "asked for")
    if is_free_threaded(asked):
        notes.warn("python", _LOCK_RETURNS, "PYTHON_GIL=0 keeps it off, at your own risk", _FREE_THREADING)
    return asked


def default_python(offered: Sequence[str], host: Host, notes: Notes) -> str:
    """Return the Python to build for where none is asked for: the one that runs attnforge, if it is offered."""
    own = ".".join(host.python.split(".")[:2])
    wanted = own if own in offered else offered[len(offered) // 2]
    notes.decide("python", wanted, "the Python that runs attnforge" if wanted == own else "middle of torch's")
    return wanted


def read_python(text: str) -> str:
    """Return ``3.12`` of ``3.12.7``, ``3.14t`` of ``3.14.2t``; other texts unchanged."""
    free = re.fullmatch(r"(\d+\.\d+)(?:t(?:\.\d+)?|\.\d+t)", text)
    if free:
        return f"{free[1]}t"
    return ".".join(text.split(".")[:2]) if re.fullmatch(r"\d+(?:\.\d+){1,2}", text) else text


def choose_cuda(request: Request, release: TorchRelease, host: Host, notes: Notes) -> str:
    """Return the CUDA minor that torch is built with; RequestError if that PyTorch has no such build."""
    of_build, whose = torch_cuda(request.torch, (release,)) if request.torch else "", f"--torch {request.torch}"
    if not request.torch and (of_build := installed_cuda(request, host)):
        whose = f"the installed PyTorch {host.torch}"
    if request.cuda:
        wanted = read_cuda(request.cuda, release.cuda)
        if wanted not in release.cuda:
            raise RequestError(
                f"PyTorch {release.version} has no build with CUDA {shortened(wanted)}",
                why=f"it is built with {', '.join(release.cuda)}",
                hint=_nearest_torch(wanted, release),
                link="https://github.com/pytorch/pytorch/blob/main/RELEASE.md",
            )
        if request.torch and of_build not in ("", wanted):
            raise RequestError(
                f"--torch {request.torch} and --cuda {request.cuda} name two CUDA versions",
                why=f"{request.torch} is the build with CUDA {of_build}",
                hint=f"--torch {release.version} --cuda {wanted}, or only --torch {request.torch}",
            )
        notes.decide("cuda", wanted, "asked for", _others(release, wanted, "not asked for"))
        return wanted
    if of_build:
        notes.decide("cuda", of_build, f"{whose} is built with it", _others(release, of_build, "name it with --cuda"))
        return of_build
    wanted, reason = own_cuda(release, host)
    notes.decide("cuda", wanted, reason, _others(release, wanted, "name it with --cuda"))
    return wanted


def own_cuda(release: TorchRelease, host: Host) -> tuple[str, str]:
    """Return the CUDA to build for where none is asked for, and why.

    One that this machine has a toolkit of is taken before another toolkit is fetched from NVIDIA. A toolkit that a
    variable names compiles for each CUDA of its major, and wins over others.
    """
    published = release.index_cuda, f"torch {release.version} on the package index is built with it"
    named = {major_version(kit.cuda) for kit in host.toolkits if kit.named_by}
    if pypi_toolchain(release.index_cuda) or _has_toolkit(release.index_cuda, host):
        return published
    if major_version(release.index_cuda) in named:
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
    digits = text.strip().lower().removeprefix("cuda").removeprefix("cu").strip()
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
    """Return the newest of these CUDA versions that a toolchain is available for, or ""; they are in order."""
    return next((cuda for cuda in reversed(offered) if _compilable(cuda, host)), "")


def nearest_compilable(offered: Sequence[str], host: Host) -> str:
    """Return the one of these CUDA versions that is compiled best here; "" where none can be.

    A toolchain of exactly that CUDA is best. Else PyTorch takes an nvcc of the same major, as a build for one PyTorch
    does, and the nearest to it is best.
    """
    exact = newest_compilable(offered, host)
    if exact:
        return exact
    for toolkit in host.toolkits:
        alike = [cuda for cuda in offered if cuda.split(".")[0] == toolkit.cuda.split(".")[0]]
        if alike:
            return nearest(toolkit.cuda, alike)
    return ""


def _others(release: TorchRelease, wanted: str, why: str) -> list[tuple[str, str]]:
    return [(other, why) for other in release.cuda if other != wanted]


def _nearest_torch(cuda: str, release: TorchRelease) -> str:
    having = [other.version for other in torch_releases() if cuda in other.cuda]
    own = f"--cuda {nearest(cuda, release.cuda)}"
    return f"{own}, or --torch {having[-1]} --cuda {cuda}" if having else own


def nearest(wanted: str, offered: Sequence[str]) -> str:
    """Return the version of two numbers that is nearest to ``wanted``, by their order where the first numbers differ.

    Of a text that begins with no number, the last that is offered.
    """
    mine = _numbers(wanted)
    if mine is None:
        return offered[-1]

    def distance(other: str) -> tuple[int, int]:
        major, minor = _numbers(other) or (0, 0)
        # Of a later major each minor is further off than any of this one, and so the lowest is the nearest.
        beyond = minor if major > mine[0] else -minor if major < mine[0] else abs(minor - mine[1])
        return abs(major - mine[0]), beyond

    return min(offered, key=distance)


def _numbers(text: str) -> tuple[int, int] | None:
    match = re.match(r"(\d{1,9})(?:\.(\d{1,9}))?", text, re.ASCII)
    return (int(match[1]), int(match[2] or 0)) if match else None
