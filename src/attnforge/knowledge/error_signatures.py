"""Known error messages: what happened, why, and what fixes it."""

from __future__ import annotations

import re
from functools import cache

from pydantic import field_validator

from attnforge.knowledge.data import load
from attnforge.model.base import Value


class Signature(Value):
    """A known message. ``pattern`` is a regular expression, empty where the failure prints nothing.

    ``shown`` is the message as people see it, as Markdown. ``harmless``: builds that succeed print it too, so it is a
    cause only where it is the error itself.
    """

    id: str
    shown: str
    pattern: str
    what: str
    why: str
    hint: str
    link: str
    harmless: bool = False

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        re.compile(value, re.MULTILINE)
        return value

    def matches(self, text: str) -> bool:
        """Say whether the message occurs in a text, in the first 1000 characters of a line."""
        return bool(self.pattern) and re.search(self.pattern, _clipped(text), re.MULTILINE) is not None


_LONGEST = 1000
"""Characters of a line that are searched: some patterns take a time that grows with the square of a line's length."""


def _clipped(text: str) -> str:
    return "\n".join(line[:_LONGEST] for line in text.split("\n"))


class _Table(Value):
    links: dict[str, str]
    signature: tuple[Signature, ...]


@cache
def all_signatures() -> tuple[Signature, ...]:
    """Return every signature, the most specific first, links written out."""
    table = load("errors.toml", _Table)
    return tuple(
        signature.model_copy(update={"link": signature.link.format(**table.links)}) for signature in table.signature
    )


def signature(identifier: str) -> Signature:
    """Return the signature of that id; KeyError where there is none."""
    for candidate in all_signatures():
        if candidate.id == identifier:
            return candidate
    raise KeyError(identifier)


def match_signature(text: str) -> Signature | None:
    """Return the most specific signature whose message is in a text, or None."""
    clipped = _clipped(text)
    return next((candidate for candidate in all_signatures() if candidate.matches(clipped)), None)
