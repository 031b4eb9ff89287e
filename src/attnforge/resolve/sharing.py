"""One CUDA for several PyTorch versions."""

from __future__ import annotations

from collections.abc import Sequence

from attnforge.errors import RequestError
from attnforge.knowledge.torch import TorchRelease
from attnforge.model.host import Host
from attnforge.model.request import Request
from attnforge.model.universal import numbers
from attnforge.resolve.decisions import Notes
from attnforge.resolve.torch import choose_cuda, nearest_compilable, own_cuda, read_cuda
from attnforge.resolve.versions import named_cuda

_MATRIX = "https://github.com/pytorch/pytorch/blob/main/RELEASE.md"


def choose_shared_cuda(request: Request, releases: Sequence[TorchRelease], host: Host, notes: Notes) -> str:
    """Return the one CUDA of a wheel for several PyTorch versions; RequestError where they have none together.

    That is the one asked for, else the one of a wheel for the first only, where all have builds with it, else the
    newest that all share and that can be compiled here.
    """
    if len(releases) == 1:
        return choose_cuda(request, releases[0], host, notes)
    shared = _shared(releases)
    built_with = named_cuda(request.torch, releases)
    if request.cuda or built_with:
        asked = read_cuda(request.cuda, shared) if request.cuda else built_with
        if built_with not in ("", asked):
            raise RequestError(
                f"--torch {request.torch} and --cuda {request.cuda} name two CUDA versions",
                hint=f"leave --cuda out, or the local versions (+cu{built_with.replace('.', '')})",
            )
        wanted, reason = asked, "asked for"
        check_cuda(wanted, releases, hint=f", or --cuda {shared[-1]} for all" if shared else "")
    else:
        wanted, first = own_cuda(releases[0], host)
        reason = f"{first}, and the others have builds with it"
        if wanted not in shared:
            wanted, reason = nearest_compilable(shared, host), "each PyTorch is built with it, and it compiles here"
    if not wanted:
        raise _nothing_shared(releases, shared, host)
    notes.decide("cuda", wanted, reason, _not_shared(releases, wanted))
    return wanted


def check_cuda(cuda: str, releases: Sequence[TorchRelease], hint: str = "") -> None:
    """Raise RequestError where a PyTorch has no build with this CUDA; ``hint`` is added to the advice."""
    lacking = [release for release in releases if cuda not in release.cuda]
    if lacking:
        raise RequestError(
            f"PyTorch {_versions(lacking)} has no build with CUDA {cuda}",
            why="a universal wheel is for one CUDA; "
            + "; ".join(f"{release.version} is built with {', '.join(release.cuda)}" for release in lacking),
            hint=f"build a separate wheel for --torch {_versions(lacking, ',')}{hint}",
            link=_MATRIX,
        )


def _nothing_shared(releases: Sequence[TorchRelease], shared: Sequence[str], host: Host) -> RequestError:
    if shared:
        why = f"they share {', '.join(shared)}, and this machine has no nvcc of these majors"
        more = f", or install a CUDA toolkit and say --cuda {shared[-1]}"
    else:
        why = "; ".join(f"{release.version} is built with {', '.join(release.cuda)}" for release in releases)
        more = ""
    apart = " and ".join(f"--torch {_versions(group, ',')}" for group in _groups(releases, host))
    return RequestError(
        f"PyTorch {_versions(releases)} have no CUDA together that one wheel could be compiled with here",
        why=why,
        hint=f"build separate wheels: {apart}{more}",
        link=_MATRIX,
    )


def _groups(releases: Sequence[TorchRelease], host: Host) -> list[list[TorchRelease]]:
    """Return releases in rows of neighbours that a wheel can be compiled for together."""
    groups: list[list[TorchRelease]] = []
    for release in releases:
        if groups and nearest_compilable(_shared([*groups[-1], release]), host):
            groups[-1].append(release)
        else:
            groups.append([release])
    return groups


def _shared(releases: Sequence[TorchRelease]) -> tuple[str, ...]:
    return tuple(cuda for cuda in releases[0].cuda if all(cuda in release.cuda for release in releases))


def _not_shared(releases: Sequence[TorchRelease], wanted: str) -> list[tuple[str, str]]:
    """Return the CUDA versions that some PyTorch is built with and that were not taken, with the reason."""
    every = dict.fromkeys(cuda for release in releases for cuda in release.cuda if cuda != wanted)
    lacking = {cuda: [release for release in releases if cuda not in release.cuda] for cuda in every}
    return [
        (cuda, f"torch {_versions(without)} has no build with it" if without else "name it with --cuda")
        for cuda, without in sorted(lacking.items(), key=lambda item: numbers(item[0]))
    ]


def _versions(releases: Sequence[TorchRelease], separator: str = ", ") -> str:
    return separator.join(release.version for release in releases)
