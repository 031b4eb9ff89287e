"""Writes text to a terminal safely. All output of a verb goes through a ``Terminal``.

Names of files, units and GPUs, compilers' logs and servers' answers come from others. A control character in them can
move the cursor, hide text or forge a verdict. A line break can begin a line that looks like ours. A bidirectional mark
shows letters in another order (CVE-2021-42574). ``Terminal`` writes such characters as JSON does: ``\\u001b``.
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
    """Return a text, line breaks included, with control and hidden characters escaped."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in _KEPT or not _controls(char) else _escaped(char) for char in text)


def one_line(text: str) -> str:
    """Return a text as a part of one line: line breaks and tabs are escaped too."""
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
    """Writes text that can't control the terminal. ``raw`` is the stream behind it, for the live display."""

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
        """Write an error after a prefix. Further lines of a part, such as a compiler's, are indented.

        So no line from elsewhere looks like one of ours.
        """
        first, *rest = (part.replace("\n", "\n    ") for part in error.parts)
        self.text("\n".join([f"{before}: {first}", *rest]) + "\n")

    def json(self, document: Mapping[str, Any] | list[Any], *, indent: int | None = 1) -> None:
        """Write a document; without ``indent`` as one line."""
        self.raw.write(visible(json.dumps(document, indent=indent)) + "\n")
        self.raw.flush()

    def isatty(self) -> bool:
        """Say whether the stream is a terminal."""
        return self.raw.isatty()
