"""Reads PTX as cicc writes it, and writes what cicc would have written for a later architecture.

Where cicc makes the same of a source for two architectures, its outputs differ in the line ``.target``, and in
functions that the later one's source leaves out: these are missing there, and those after them have other numbers in
their labels. ``derived`` makes the one from the other. One of them does not show whether they are the same. That is
looked up by ``parts``, digests of what a PTX is made of (reuse/shared.py). They are the same in whichever unit a
function is.

Seen with CUDA 12.4 and 13.0: a head of comments, version, target and declarations, then the functions, each after a
comment with its name; the first one's comment comes before the declarations.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

_START = re.compile(rb"^(?:\.(?:visible|weak)[ \t]+)?\.(?:entry|func)\b[^;{]*?\b(?P<name>[\w$]+)\(", re.MULTILINE)
_OPENING = re.compile(rb"[;{]")
# The brace that closes a function, and before it inline assembly, which may have a brace at the beginning of a line.
_END = re.compile(rb"// begin inline asm\n.*?// end inline asm\n|^(?P<brace>\}\n)", re.MULTILINE | re.DOTALL)
_MARK = re.compile(rb"\t// \.(?:globl|weak)\t(?P<name>[\w$]+)\n")
_TARGET = re.compile(rb"^\.target sm_(?P<code>\d+[af]?)$", re.MULTILINE)
_NUMBERED = re.compile(rb"(?P<what>\$L__BB|__local_depot)(?P<number>\d+)")

# Hex digits of a part's digest: 128 bits.
_DIGITS = 32


class UnknownPtxError(Exception):
    """The text is not PTX of a known form."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function with a body: its mangled name, and its text from the first word to the brace that closes it."""

    name: str
    text: bytes


@dataclass(frozen=True, slots=True)
class Module:
    """A PTX, taken apart.

    ``head`` is all before the first function, without the comment that names it; that stood at ``mark``, -1 for
    nowhere. ``marks`` are the comments before each function, "" for none, and ``tail`` is what follows the last.
    """

    head: bytes
    mark: int
    marks: tuple[bytes, ...]
    functions: tuple[Function, ...]
    tail: bytes

    @property
    def target(self) -> str:
        """The architecture that it is for: ``80``, ``90a``."""
        found = _TARGET.findall(self.head)
        if len(found) != 1:
            raise UnknownPtxError(f"{len(found)} lines .target")
        return str(found[0].decode())


def read_ptx(text: bytes) -> Module:
    """Take a PTX apart. Raises UnknownPtxError if it has another form."""
    spans = list(_spans(text))
    if not spans:
        raise UnknownPtxError("no functions")
    ends = [0, *(end for _, _, end in spans)]
    gaps = [text[end:start] for end, (_, start, _) in zip(ends, spans, strict=False)]
    first = _MARK.search(gaps[0])
    head = gaps[0] if first is None else gaps[0][: first.start()] + gaps[0][first.end() :]
    marks = (first[0] if first else b"", *gaps[1:])
    functions = tuple(Function(name, text[start:end]) for name, start, end in spans)
    for mark, function in zip(marks, functions, strict=True):
        match = _MARK.fullmatch(mark)
        if mark and (match is None or match["name"].decode() != function.name):
            raise UnknownPtxError(f"what comes before {function.name}")
    tail = text[ends[-1] :]
    if tail.strip():
        raise UnknownPtxError("what comes after the last function")
    return Module(head, first.start() if first else -1, marks, functions, tail)


def _spans(text: bytes) -> Iterator[tuple[str, int, int]]:
    """Yield the name of each function that has a body, and where it begins and ends."""
    at = 0
    while (match := _START.search(text, at)) is not None:
        opening = _OPENING.search(text, match.end())
        if opening is None:
            raise UnknownPtxError("a function without an end")
        at = opening.end()
        if opening[0] == b"{":
            end = next((found for found in _END.finditer(text, at) if found["brace"]), None)
            if end is None:
                raise UnknownPtxError("a function without an end")
            at = end.end()
            yield match["name"].decode(), match.start(), at


def parts(module: Module, module_id: str, left_out: Callable[[str], bool] = lambda name: False) -> dict[str, str]:
    """Return the digests of what a PTX is made of, each with a name for people; without functions ``left_out``.

    That is each function, and each line of the head but the target: declarations, and comments that name the build of
    the compiler. ``module_id`` is the translation unit's: names of internal linkage hold it, and count without.
    """
    names = _internal_names(module_id)
    kept = [function for function in module.functions if not left_out(function.name)]
    found = {_digest(_common(function.text, names)): function.name for function in kept}
    for line in module.head.splitlines():
        if line.strip() and not _TARGET.fullmatch(line):
            found[_digest(_common(line, names))] = line.decode(errors="replace")
    return found


def is_reordered(one: Module, other: Module, module_id: str, left_out: Callable[[str], bool]) -> bool:
    """Say whether two PTX have the same parts and as many functions: some may come in another order.

    A function that is left out can be what brought in a smaller one, which then comes later.
    """
    kept = [function for function in one.functions if not left_out(function.name)]
    same = parts(one, module_id, left_out).keys() == parts(other, module_id).keys()
    return same and len(kept) == len(other.functions)


def derived(module: Module, code: str, left_out: Callable[[str], bool] = lambda name: False) -> bytes:
    """Return the PTX for the architecture ``code`` (``90``), without the functions that are ``left_out``.

    It is what cicc writes for it where it differs only in these two. UnknownPtxError if nothing is left.
    """
    kept = [
        (mark, function, number)
        for number, (mark, function) in enumerate(zip(module.marks, module.functions, strict=True))
        if not left_out(function.name)
    ]
    if not kept:
        raise UnknownPtxError("no functions are left")
    return _TARGET.sub(b".target sm_" + code.encode(), assembled(module, kept), count=1)


def assembled(module: Module, functions: Sequence[tuple[bytes, Function, int]]) -> bytes:
    """Return the PTX with the head and tail of ``module`` and these functions in this order.

    Each comes with the comment before it and the number that it had. Their labels get the numbers that they have here,
    as cicc counts.
    """
    at = max(module.mark, 0)
    mark = functions[0][0] if module.mark >= 0 else b""
    texts = [module.head[:at], mark, module.head[at:]]
    for number, (before, function, had) in enumerate(functions):
        texts += [before if number else b"", renumbered(function.text, had, number)]
    return b"".join([*texts, module.tail])


def renumbered(text: bytes, before: int, number: int) -> bytes:
    """Return a function's text with its own number changed in its labels; any other number there stays."""
    own, other = b"%d" % before, b"%d" % number
    return _NUMBERED.sub(lambda match: match["what"] + (other if match["number"] == own else match["number"]), text)


def _internal_names(module_id: str) -> tuple[bytes, ...]:
    """Return the names, with their lengths before them, that identify a translation unit in mangled names."""
    names = (f"{kind}{module_id}" for kind in ("_INTERNAL", "_GLOBAL__N_"))
    return tuple(f"{len(name)}{name}".encode() for name in names) if module_id else ()


def _common(text: bytes, names: tuple[bytes, ...]) -> bytes:
    """Return a text without what depends on the unit that it is in."""
    for name in names:
        text = text.replace(name, b"<unit>")
    return _NUMBERED.sub(lambda match: match["what"], text)


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:_DIGITS]
