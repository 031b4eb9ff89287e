"""Versions and specifiers in texts that come from outside: users, indexes, sources, wheels."""

from __future__ import annotations

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


def shortened(text: str) -> str:
    """Return a text as messages show it: cut after 200 characters."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"
