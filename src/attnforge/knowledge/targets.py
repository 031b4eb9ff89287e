"""Named targets, and what each profile leaves out."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from typing import TypeVar

from pydantic import Field

from attnforge.errors import RequestError
from attnforge.knowledge.data import load
from attnforge.model.base import Value

V = TypeVar("V")


class TargetPackage(Value):
    """What a package means in a named target.

    ``package`` names a version, and may name another distribution: what upstream called it then. ``source`` is a kind
    of source that its recipe has, ``gpus`` those of the target that it serves; empty: the recipe's first, and all.
    """

    package: str
    source: str = ""
    gpus: tuple[str, ...] = ()


class NamedTarget(Value):
    """A named target.

    ``packages`` says what a package that is named without a version means in it; ``label`` "none" keeps upstream's
    wheel names.
    """

    name: str
    summary: str
    python: str
    torch: str
    cuda: str
    gpus: tuple[str, ...]
    label: str = ""
    packages: dict[str, TargetPackage] = Field(default_factory=dict)


class Profile(Value):
    """A name for what is left out."""

    name: str
    summary: str
    without: tuple[str, ...]


class _Targets(Value):
    target: tuple[NamedTarget, ...]


class _Profiles(Value):
    profile: tuple[Profile, ...]


@cache
def targets() -> dict[str, NamedTarget]:
    """Return the named targets by name."""
    return {target.name: target for target in load("targets.toml", _Targets).target}


@cache
def profiles() -> dict[str, Profile]:
    """Return the profiles by name."""
    return {profile.name: profile for profile in load("profiles.toml", _Profiles).profile}


def find_target(name: str) -> NamedTarget:
    """Return a named target; RequestError with suggestions."""
    return _find(name, targets(), "target")


def find_profile(name: str) -> Profile:
    """Return a profile; RequestError with suggestions."""
    return _find(name, profiles(), "profile")


def _find(name: str, table: dict[str, V], what: str) -> V:
    if name in table:
        return table[name]
    near = get_close_matches(name, table, n=1)
    raise RequestError(
        f"there is no {what} {name!r}",
        why=f"{what}s: " + ", ".join(table),
        hint=f"--{what} {near[0] if near else next(iter(table))}",
    )
