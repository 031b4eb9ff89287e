"""Lists and ranges of PyTorch and Python, as users write them: ``2.11,2.13``, ``3.10-3.13``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from attnforge.errors import RequestError
from attnforge.knowledge.torch import TorchRelease, find_torch, torch_cuda, torch_releases, torch_releases_with
from attnforge.model.target import is_free_threaded
from attnforge.model.universal import numbers
from attnforge.model.versions import shortened
from attnforge.resolve.torch import nearest, read_python

_Named = TypeVar("_Named")

_SEVERAL = re.compile(r"[,;]|\d\s*-\s*\d")


def names_several(text: str) -> bool:
    """Say whether a text is a list or a range, and not one version."""
    return _SEVERAL.search(text) is not None


def expand_torches(text: str, read: Iterable[TorchRelease] = ()) -> tuple[TorchRelease, ...]:
    """Return the releases that a list names, oldest first: of a minor, and of each minor of a range, the newest patch.

    ``read`` are releases that the index has and the table lacks. RequestError for an unknown version and for two
    patches of one minor.
    """
    by_minor: dict[str, TorchRelease] = {}
    find, between = partial(find_torch, read=read), partial(_torches_between, read=read)
    for release in _expanded(text, "--torch", find, between):
        minor = minor_of(release)
        other = by_minor.setdefault(minor, release)
        if other != release:
            raise RequestError(
                f"--torch {text} names {other.version} and {release.version}, two patches of PyTorch {minor}",
                why=f"modules for PyTorch {minor} load with each of its patches: the wheel holds them once",
                hint="name one of them",
            )
    return tuple(sorted(by_minor.values(), key=lambda release: numbers(minor_of(release))))


def named_cuda(text: str, read: Iterable[TorchRelease] = ()) -> str:
    """Return the CUDA of the local versions in a list of PyTorch (``2.11.0+cu128,2.12.1+cu128``), or "".

    RequestError where two differ, and as ``torch_cuda`` raises it.
    """
    words = [word.strip() for word in text.replace(";", ",").split(",") if "+" in word]
    named = {cuda: word for word in words if (cuda := torch_cuda(word, read))}
    if len(named) > 1:
        raise RequestError(
            f"{' and '.join(named.values())} are built with different CUDA versions",
            why="a universal wheel is for one CUDA",
            hint="name the same +cuNNN with each, or none and --cuda",
        )
    return next(iter(named), "")


def expand_pythons(text: str) -> tuple[str, ...]:
    """Return the Python minors that a list names, lowest first.

    RequestError for one that no PyTorch is built for, and for a free-threaded one: there is no loader for it.
    """
    found = set(_expanded(text, "--python", _known_python, _pythons_between))
    return tuple(sorted(found, key=numbers))


def minor_of(release: TorchRelease) -> str:
    """Return ``2.11`` of PyTorch 2.11.0."""
    return ".".join(release.version.split(".")[:2])


def _expanded(
    text: str, option: str, one: Callable[[str], _Named], between: Callable[[str, str], list[_Named]]
) -> list[_Named]:
    """Return what a list names, word by word; a range is ``first-last``, both in it."""
    words = [word.strip() for word in text.replace(";", ",").split(",") if word.strip()]
    if not words:
        raise RequestError(f"{option} {shortened(text)} names no version", hint=f"name at least one with {option}")
    found: list[_Named] = []
    for word in words:
        first, is_range, last = (part.strip() for part in word.partition("-"))
        meant = between(first, last) if is_range else [one(word)]
        if not meant:
            raise RequestError(
                f"the range {word} is empty", why=f"{first} is above {last}", hint=f"write {last}-{first}"
            )
        found += meant
    return found


def _torches_between(first: str, last: str, read: Iterable[TorchRelease]) -> list[TorchRelease]:
    known = {minor_of(release): release for release in torch_releases_with(read)}
    for end in (first, last):
        if end not in known:
            minor = minor_of(find_torch(end, read))
            raise RequestError(
                f"a range of PyTorch can't end at {end}",
                why="it means the newest patch of each minor in it",
                hint=f"write {minor} there, or name {end} by itself with a comma",
            )
    return [known[minor] for minor in known if numbers(first) <= numbers(minor) <= numbers(last)]


def _pythons_between(first: str, last: str) -> list[str]:
    lowest, highest = numbers(_known_python(first)), numbers(_known_python(last))
    return [python for python in _known_pythons() if lowest <= numbers(python) <= highest]


def _known_python(word: str) -> str:
    """Return the minor of a Python (``3.12`` of ``3.12.1``) that some PyTorch is built for."""
    minor, known = read_python(word), _known_pythons()
    if is_free_threaded(minor):
        raise RequestError(
            f"a universal wheel can't be for the free-threaded Python {shortened(word)}",
            why="its loader chooses by the version of Python, which is the same with and without the lock",
            hint=f"build a separate wheel: --python {shortened(word)}, without --universal",
        )
    if minor not in known:
        raise RequestError(
            f"no PyTorch that is known is built for Python {shortened(word)}",
            why=f"known: {', '.join(known)}",
            hint=f"--python {nearest(minor, known)}",
        )
    return minor


def _known_pythons() -> list[str]:
    return sorted({python for release in torch_releases() for python in release.pythons}, key=numbers)
