"""The one door through which text reaches a terminal.

Names of files in wheels, of units, of GPUs, lines of compilers' logs and answers of servers are written by others. On a
terminal a control character in one of them moves the cursor, hides text or forges a verdict; a line break begins a line
that looks like ours; a bidirectional mark shows letters in another order (CVE-2021-42574). So all that a verb prints
goes through a ``Terminal``, in which such characters become visible, as JSON would write them: ``\\u001b``.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from attnforge.errors import AttnforgeError

# Besides the general categories of controls, formats, surrogates and line separators.
_KEPT = frozenset("\n\t")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def visible(text: str) -> str:
    """Return a text with its line breaks in which no character controls a terminal or hides."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in _KEPT or not _controls(char) else _escaped(char) for char in text)


def one_line(text: str) -> str:
    """Return what is somebody else's as a part of one line: line breaks and tabs are made visible too."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def _controls(char: str) -> bool:
    return unicodedata.category(char) in _HIDDEN


def _escaped(char: str) -> str:
    """Return JSON's escape of a character, so that what is JSON stays JSON."""
    code = ord(char)
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


class Terminal:
    """Writes text in which nothing controls the terminal. ``raw`` is the stream behind it, for the live display."""

    def __init__(self, raw: TextIO) -> None:
        """Write to ``raw``."""
        self.raw = raw

    def lines(self, lines: Iterable[str]) -> None:
        """Write each text as one line, at once."""
        for line in lines:
            self.raw.write(one_line(line) + "\n")
        self.raw.flush()

    def text(self, text: str) -> None:
        """Write text of several lines, such as an error."""
        self.raw.write(visible(text))
        self.raw.flush()

    def error(self, error: AttnforgeError, before: str) -> None:
        """Write an error after some words of ours. What is of several lines, such as a compiler's, is indented.

        So no line of somebody else's begins where one of ours does.
        """
        first, *rest = (part.replace("\n", "\n    ") for part in error.parts)
        self.text("\n".join([f"{before}: {first}", *rest]) + "\n")

    def json(self, document: Mapping[str, Any] | list[Any], *, indent: int | None = 1) -> None:
        """Write a document; without ``indent`` as one line."""
        self.raw.write(visible(json.dumps(document, indent=indent)) + "\n")
        self.raw.flush()

    def isatty(self) -> bool:
        """Say whether somebody looks at it."""
        return self.raw.isatty()
