"""Minors of PyTorch and Python as texts (``2.11``): their order, the runs in them, the specifier that they meet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attnforge.model.universal import numbers


def ordered(minors: Iterable[str]) -> tuple[str, ...]:
    """Return each minor once, as numbers sort."""
    return tuple(sorted(set(minors), key=numbers))


def runs(minors: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return minors in runs of consecutive ones: ((``2.9``,), (``2.11``, ``2.12``, ``2.13``))."""
    found: list[list[str]] = []
    for minor in ordered(minors):
        if found and _next(found[-1][-1]) == numbers(minor):
            found[-1].append(minor)
        else:
            found.append([minor])
    return tuple(map(tuple, found))


def specifier(minors: Iterable[str]) -> str:
    """Return the PEP 440 specifier that just these minors meet: ``>=2.9,<2.14,!=2.10.*``, of one ``==2.9.*``."""
    held = ordered(minors)
    first, last = held[0], held[-1]
    if first == last:
        return f"=={first}.*"
    major, minor = _next(last)
    holes = [f"!={hole}.*" for hole in _holes(held)]
    return ",".join([f">={first}", f"<{major}.{minor}", *holes])


def _holes(held: Sequence[str]) -> Iterable[str]:
    """Yield the minors between the first and the last that are not there; of a new major those from its .0 on."""
    for run, following in zip(runs(held), runs(held)[1:], strict=False):
        (major, minor), (next_major, end) = _next(run[-1]), numbers(following[0])
        start = minor if major == next_major else 0
        yield from (f"{next_major}.{hole}" for hole in range(start, end))


def _next(minor: str) -> tuple[int, int]:
    major, last = numbers(minor)
    return major, last + 1
