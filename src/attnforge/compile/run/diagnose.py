"""Turns the log of a failed compile into an error that says what failed, why, and how to fix it."""

from __future__ import annotations

import re
from itertools import takewhile

from attnforge.errors import BuildError
from attnforge.knowledge.error_signatures import Signature, match_signature, signature

_LONGEST = 600
"""Characters of a line that are kept: a mangled template's name can have tens of thousands."""

_CONTEXT = 2
"""Lines of source and caret that are kept below an error."""

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\n]{0,300}\x07")

# An error as nvcc, cudafe++, cicc, ptxas, nvlink, gcc, clang, as, ld, sccache, a shell and Python print it.
_ERROR = re.compile(
    r"""
      ^\s*(?:\S.*?[:,;]\s+)?(?:fatal\ |catastrophic\ |internal\ (?:compiler\ )?)?[Ee]rror\s*(?:\#[\w-]+)?\s*:\s*\S
    | ^\s*(?:nvcc|ptxas|nvlink|fatbinary|cudafe\+\+|cicc|bin2c)\s+(?:error|fatal)\s*:
    | \):\s+(?:catastrophic\ |internal\ )?error(?:\ \#[\w-]+)?\s*:
    | \bundefined\ reference\ to\b | \bmultiple\ definition\ of\b | \brelocation\ truncated\ to\ fit\b
    | \bcannot\ find\ -l | \bunable\ to\ find\ library\ -l | \bfile\ (?:format\ )?not\ recognized\b
    | ^\S*sh:\ .*\bnot\ found | :\ command\ not\ found$
    | \bNo\ space\ left\ on\ device\b | \bDisk\ quota\ exceeded\b
    | \bvirtual\ memory\ exhausted\b | \bout\ of\ memory\ allocating\b | \bstd::bad_alloc\b | ^LLVM\ ERROR:
    | ^Internal\ Compiler\ Error | ^Segmentation\ fault\b | \bcore\ dumped\b
    | ^(?:\w+\.)*\w*(?:Error|Exception):\s*\S
    """,
    re.VERBOSE,
)

# A Python exception without a text, or with one that begins on the next line (MinkowskiEngine's).
_NAME_ALONE = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception):?\s*$")

# Lines that only say that something before them failed, or that are not errors.
_CONSEQUENCE = re.compile(
    r"""
      Ptx\ assembly\ aborted | \bld\ returned\ \d+\ exit\ status | linker\ command\ failed
    | error:\ command\ .*\bfailed | returned\ non-zero\ exit\ status | Error\ compiling\ objects\ for\ extension
    | metadata-generation-failed | subprocess-exited-with-error | Failed\ (?:to\ build|building)\b
    | ^\s*(?:ninja|make(?:\[\d+\])?):\s | ^FAILED: | \[code=\d+\]
    | final\ link\ failed(?!.*No\ space)
    """,
    re.VERBOSE,
)
_NOISE = re.compile(
    r"""
      \b(?:warning|note|remark|info)\b\s*(?:\#[\w-]+)?\s*: | ^\s*\[\d+/\d+\] | ^\s*\d+\ errors?\ (?:detected|generated)
    | Precompiled\ wheel\ not\ found | HTTP\ Error\ 404
    """,
    re.VERBOSE | re.IGNORECASE,
)
_KILLED = re.compile(
    r"""
      died\ due\ to\ signal\ 9\b | Killed\ signal\ terminated\ program | terminated\ with\ signal\ 9\b
    | internal\ compiler\ error:\ Killed | \bsignal:\ 9\b | \bSIGKILL\b
    | ^(?:\S*sh:\ (?:line\ )?\d+:\ *)?(?:\d+\ )?Killed(?:\s|$)
    """,
    re.VERBOSE | re.MULTILINE,
)
_BACKTRACE = re.compile(r"^\s*(?:instantiation of\b|detected (?:during|at)\b|.*\brequired (?:from|by)\b)")
_ASKED_FROM = re.compile(r":\d+(?::\d+)?:\s+required from here$")
_KILLED_CODES = frozenset({137, -9, 254})
"""128 + SIGKILL from a shell, the signal itself from Python, and what sccache answers for a killed compiler."""


def was_killed(code: int, log: str) -> bool:
    """Say whether a compile ended because something killed it (SIGKILL), which is almost always for memory."""
    return code in _KILLED_CODES or _KILLED.search(log) is not None


def disk_full(log: str) -> bool:
    """Say whether a log tells of a full disk or an exhausted quota."""
    return signature("disk-full").matches(log)


def first_error(log: str) -> str:
    """Return the first real error of a log, with the source line and caret below it; "" for a log without text.

    A line is a line of the log, its escape sequences taken out and cut to 600 characters. Of a template's backtrace
    the last step is kept: it is the one in the user's own unit. Where nothing looks like an error the log's last line
    is returned.
    """
    lines = [line.rstrip() for line in _ANSI.sub("", log).splitlines()]
    at = _error_at(lines)
    if at is None:
        return next((line.strip()[:_LONGEST] for line in reversed(lines) if line.strip()), "")
    kept = [*_whole(lines[at:]), *_below(lines[at + 1 :]), *_above(lines[:at])]
    return "\n".join(line[:_LONGEST] for line in kept)


def _error_at(lines: list[str]) -> int | None:
    """Return the index of the first real error, else of the first kill, else of the first consequence of one."""
    candidates = [index for index, line in enumerate(lines) if not _NOISE.search(line[:_LONGEST])]
    ranks = (
        lambda line: (_ERROR.search(line) or _NAME_ALONE.match(line)) and not _CONSEQUENCE.search(line),
        _KILLED.search,
        _CONSEQUENCE.search,
    )
    for rank in ranks:
        found = next((index for index in candidates if rank(lines[index][:_LONGEST])), None)
        if found is not None:
            return found
    return None


def _whole(lines: list[str]) -> list[str]:
    """Return the first line, with those after it where it is an exception whose text begins below its name."""
    first = lines[0].strip()
    if not _NAME_ALONE.match(first):
        return [first]
    text = [line.strip() for line in lines[1:] if line.strip()][:_CONTEXT]
    return [" ".join((first if first.endswith(":") else f"{first}:", *text))] if text else [first]


def _below(lines: list[str]) -> list[str]:
    """Return what belongs to an error: its source lines, and the last step of its backtrace."""
    indented = list(takewhile(lambda line: line[:1].isspace() and bool(line.strip()), lines))
    steps = [line for line in indented if _BACKTRACE.match(line[:_LONGEST])]
    source = list(takewhile(lambda line: not _BACKTRACE.match(line[:_LONGEST]), indented))
    return [*source[:_CONTEXT], *(line.strip() for line in steps[-1:])]


def _above(lines: list[str]) -> list[str]:
    """Return the last step of the backtrace that gcc prints before an error."""
    return [line.strip() for line in lines[-1:] if _ASKED_FROM.search(line)]


def explain(log: str, code: int, unit: str, rerun: str) -> BuildError:
    """Return the error for a unit whose compile ended with ``code``.

    ``rerun`` is the command that compiles only this unit, "" if there is none.

    A negative code is the signal that ended it. The cause is that of the first error, else of any known message in
    the log.
    """
    error = first_error(log)
    cause = _cause(log, code, error)
    what = f"{unit} failed to compile: {error}" if error else f"{unit} failed to compile and printed nothing"
    rerun_hint = f"to compile only this unit, run: {rerun}" if rerun else ""
    if cause is None:
        return BuildError(what, why=f"the compiler ended with {_ending(code)}", hint=rerun_hint)
    return BuildError(
        what, why=f"{cause.what}: {cause.why}", hint="\n".join(filter(None, (cause.hint, rerun_hint))), link=cause.link
    )


def known_cause(log: str, code: int = 1) -> Signature | None:
    """Return the known cause of a failure whose program ended with ``code``, None if the log tells of none."""
    return _cause(log, code, first_error(log))


def _cause(log: str, code: int, error: str) -> Signature | None:
    if disk_full(log):
        return signature("disk-full")
    if code in _KILLED_CODES:
        return signature("killed")
    # A line that names a cause and is not an error counts only if it is the first error.
    found = match_signature(error) or match_signature(_ANSI.sub("", log))
    return found if found is None or not found.harmless or found.matches(error) else None


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
