"""Versions, specifiers and requirements in texts that come from outside: users, indexes, sources, wheels."""

from __future__ import annotations

from collections.abc import Mapping

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

# A file name has 255 bytes at most, so no wheel has a longer version. Python reads no number of more than 4,300 digits.
_LONGEST = 200


def as_version(text: str) -> Version | None:
    """Return a text as a version, None where it is none by PEP 440 or has more than 200 characters."""
    if len(text) > _LONGEST:
        return None
    try:
        return Version(text)
    except ValueError:
        return None


def as_specifier(text: str) -> SpecifierSet | None:
    """Return a text as a set of specifiers that takes prereleases, None where it is none or a version in it is too
    long."""
    if any(len(part) > _LONGEST for part in text.split(",")):
        return None
    try:
        return SpecifierSet(text, prereleases=True)
    except (InvalidSpecifier, ValueError):
        return None


def as_requirement(text: str) -> Requirement | None:
    """Return a text as a requirement (``torch>=2.4``), None where it is none by PEP 508 or nested too deep."""
    try:
        return Requirement(text)
    except (ValueError, RecursionError):
        return None


def applies(asked: Requirement, environment: Mapping[str, str] | None = None) -> bool:
    """Say whether a requirement is meant for an environment and for no extra; no for a marker that makes no sense.

    ``environment`` has the values that differ from those of the Python that runs this (``python_version``).
    """
    try:
        return asked.marker is None or asked.marker.evaluate({"extra": "", **(environment or {})})
    except (UndefinedComparison, UndefinedEnvironmentName):
        return False


def shortened(text: str) -> str:
    """Return a text as messages show it: cut after 200 characters."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"
