"""Reads depfiles: the headers that a compiler has read."""

from __future__ import annotations

import re

# GCC's mkdeps.cc, munge(): white space is written after a backslash, with the backslashes before it doubled; "#" after
# a backslash; "$" twice. Any other backslash is itself.
_CONTINUED = re.compile(r"\\\r?\n")
# A run of backslashes is read as a whole: one of even length ends the word where white space follows.
_WORD = re.compile(r"(?:[^ \t\\]|(?:\\\\)*+\\[ \t]|\\++)+")
_ESCAPED = re.compile(r"(?P<slashes>\\+)(?P<white>[ \t])|\\(?P<hash>#)|\$(?P<dollar>\$)")


def read_dependencies(text: str) -> tuple[str, ...]:
    """Return the files that a depfile of gcc or clang names as read, in order, each once.

    Targets are left out; so are those of the empty rules that -MP adds.
    """
    found: dict[str, None] = {}
    for rule in _CONTINUED.sub(" ", text).split("\n"):
        words = _WORD.findall(rule)
        target = next((at for at, word in enumerate(words) if word.endswith(":")), None)
        if target is not None:
            found.update(dict.fromkeys(_unescaped(word) for word in words[target + 1 :]))
    return tuple(found)


def _unescaped(word: str) -> str:
    def plain(match: re.Match[str]) -> str:
        if match["white"]:
            return "\\" * (len(match["slashes"]) // 2) + match["white"]
        return match["hash"] or match["dollar"]

    return _ESCAPED.sub(plain, word)
