"""Whether a package can have a wheel of the form that is asked for: for one PyTorch and Python, or a universal one."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from packaging.specifiers import SpecifierSet

from attnforge.errors import RequestError
from attnforge.knowledge.torch import TorchRelease
from attnforge.model.recipe import Recipe
from attnforge.model.release import Release
from attnforge.model.request import Request
from attnforge.model.target import is_free_threaded
from attnforge.resolve.torch import read_python
from attnforge.resolve.versions import expand_pythons, expand_torches, names_several

# A file name has 255 bytes at most; a wheel's report, and a part of it that is being written, have longer names.
_LONGEST_NAME = 200


def check_name(wheel: str) -> str:
    """Return the file name of a wheel; RequestError where it is longer than file systems take."""
    if len(wheel.encode()) > _LONGEST_NAME:
        raise RequestError(
            f"the name of the wheel has {len(wheel.encode())} bytes, more than {_LONGEST_NAME}: {wheel[:60]}…",
            hint="give it a short label: --label NAME",
        )
    return wheel


def check_form(
    request: Request, recipe: Recipe, release: Release | None, version: str, read: Iterable[TorchRelease] = ()
) -> None:
    """Raise RequestError where one wheel serves all without being a universal one, or several are named for one.

    Also for a free-threaded Python and a package of the limited API. ``read`` are releases of PyTorch that the table
    of known ones does not have.
    """
    several = names_several(request.torch) or names_several(request.python)
    if release is not None and (request.universal or several):
        _check_needed(request, recipe, release, version, read)
    check_single(request)
    if release is not None and release.limited_api:
        _check_lock(request, recipe, version)


def _check_lock(request: Request, recipe: Recipe, version: str) -> None:
    python = read_python(request.python)
    if is_free_threaded(python):
        raise RequestError(
            f"{recipe.title} {version} can't be built for the free-threaded Python {python}",
            why="upstream compiles its modules with Python's limited API (abi3), and a free-threaded Python loads none "
            "of these",
            hint=f"--python {python.removesuffix('t')}: the wheel serves every Python with the global interpreter lock",
            link="https://docs.python.org/3/howto/free-threading-extensions.html#limited-c-api-and-stable-abi",
        )


def check_single(request: Request) -> None:
    """Raise RequestError where a request that is not universal names several PyTorch or Pythons."""
    for option, text in (("--torch", request.torch), ("--python", request.python)):
        if names_several(text) and not request.universal:
            raise RequestError(
                f"{option} {text} names several",
                why="a wheel is for one PyTorch and one Python, unless it is a universal one",
                hint=f"add --universal for one wheel for all of them, or name one with {option}",
            )


def asked_pythons(request: Request) -> tuple[str, ...]:
    """Return the Pythons that a request names, () for none; RequestError as ``check_single`` raises it."""
    check_single(request)
    if not request.python:
        return ()
    return expand_pythons(request.python) if request.universal else (request.python,)


def _check_needed(
    request: Request, recipe: Recipe, release: Release, version: str, read: Iterable[TorchRelease]
) -> None:
    if not release.compiled:
        raise RequestError(
            f"{recipe.title} {version} needs no universal wheel",
            why="it is pure Python: one wheel serves every Python and PyTorch already",
            hint=f"{_command(request)}, without --universal",
        )
    if release.limited_api:
        later = f", and those of PyTorch {release.stable_abi} with later ones" if release.stable_abi else ""
        raise RequestError(
            f"{recipe.title} {version} needs no universal wheel",
            why=f"its modules load with every Python{later}",
            hint=" and ".join(_sufficient(request, release, read)) + ", without --universal",
        )


def _sufficient(request: Request, release: Release, read: Iterable[TorchRelease]) -> list[str]:
    """Return the commands whose wheels serve all PyTorch asked for: the lowest of the stable ABI serves later ones."""
    asked = [one.version for one in expand_torches(request.torch, read)] if request.torch else []
    stable = [one for one in asked if release.stable_abi and SpecifierSet(release.stable_abi).contains(one)]
    needed = [one for one in asked if one not in stable[1:]]
    return [_command(request, "--torch", one) for one in needed] or [_command(request)]


def _command(request: Request, *more: str) -> str:
    gpus = ("--gpu", ",".join(request.gpus)) if request.gpus else ()
    return shlex.join(("attnforge", "build", request.package, *gpus, *more))
