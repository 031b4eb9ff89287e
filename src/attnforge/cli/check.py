"""``attnforge check``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attnforge.check.cases import TOPICS
from attnforge.cli.show import error_document
from attnforge.cli.show_check import check_lines, topic_lines
from attnforge.cli.terminal import Terminal
from attnforge.errors import AttnforgeError, RequestError
from attnforge.model.check import CaseResult, CheckReport
from attnforge.workflow.checking import TIMEOUT, check, write_check
from attnforge.workflow.machine import Machine


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument("wheels", nargs="+", metavar="WHEEL", type=Path)
    parser.add_argument(
        "--python",
        "--env",
        metavar="PATH",
        help="an interpreter or environment with PyTorch, where nothing is installed (default: the active environment, "
        "for a wheel that is for its PyTorch)",
    )
    parser.add_argument(
        "--torch",
        metavar="VERSION",
        help="the PyTorch of the environment that is made otherwise; or installed: that of the active environment",
    )
    parser.add_argument("--only", metavar="TOPICS", help="only cases of these topics: softcap,paged")
    parser.add_argument("--quick", action="store_true", help="fewer shapes: the same calls, a fraction of the time")
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, default=TIMEOUT, help=f"for each case (default: {TIMEOUT:g})"
    )
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="write each report there too, as WHEEL.check.json")
    parser.add_argument("--json", action="store_true", help="the reports as JSON; an array where there are several")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise RequestError(f"--timeout can't be {text!r}", hint="a number of seconds: --timeout 60")
    return seconds


def _topics(text: str) -> tuple[str, ...]:
    """Read topics; RequestError for one that no package has."""
    named = tuple(word.strip() for word in text.split(",") if word.strip())
    unknown = [word for word in named if word not in TOPICS]
    if unknown:
        raise RequestError(f"there is no topic {unknown[0]}", hint=f"--only takes {', '.join(TOPICS)}")
    return named


def run(arguments: argparse.Namespace, environ: Mapping[str, str], out: Terminal) -> int:
    """Check the wheels, one after the other; the exit code is the worst of them."""
    machine = Machine(environ)
    wheels: list[Path] = arguments.wheels
    if len(wheels) == 1:
        report = checked(machine, wheels[0], arguments, out)
        if arguments.json:
            out.json(report.to_json())
        return report.exit_code
    results = [_told(machine, wheel, arguments, out) for wheel in wheels]
    if arguments.json:
        out.json([document for document, _ in results])
    return worst(code for _, code in results)


def worst(codes: Iterable[int]) -> int:
    """Return the exit code of several: a bad wheel is said before one that could not be checked."""
    found = list(codes)
    return 5 if 5 in found else max(found, default=0)


def checked(machine: Machine, wheel: Path, arguments: argparse.Namespace, out: Terminal) -> CheckReport:
    """Check a wheel with the options of the command line; unless JSON is asked for, tell what comes of it."""
    options: dict[str, Any] = {
        "python": arguments.python or "",
        "torch": arguments.torch or "",
        "quick": arguments.quick,
        "only": _topics(arguments.only or ""),
        "timeout": arguments.timeout,
    }
    report = check(machine, wheel, **options) if arguments.json else tell_check(machine, wheel, out, **options)
    if arguments.out:
        write_check(report, arguments.out)
    return report


def tell_check(machine: Machine, wheel: Path, out: Terminal, **options: Any) -> CheckReport:
    """Check a wheel and write a line for each topic when its cases are done, and at the end what was found."""
    out.lines([wheel.name])
    topics = _Topics(out)
    report = check(machine, wheel, **options, observe=topics.add, tell=lambda line: out.lines([line]))
    topics.flush()
    out.lines(check_lines(report))
    return report


def _told(machine: Machine, wheel: Path, arguments: argparse.Namespace, out: Terminal) -> tuple[dict[str, Any], int]:
    """Check one of several: a wheel that can't be tried must not keep the others from being checked."""
    try:
        report = checked(machine, wheel, arguments, out)
    except AttnforgeError as error:
        if not arguments.json:
            out.error(error, wheel.name)
        return {"wheel": wheel.name, **error_document(error)}, error.exit_code
    return report.to_json(), report.exit_code


class _Topics:
    """Writes a line for each topic as soon as its last case is done: results come one topic after another."""

    def __init__(self, out: Terminal) -> None:
        self._out = out
        self._open: list[CaseResult] = []

    def add(self, result: CaseResult) -> None:
        """Take the next result."""
        if self._open and self._open[0].topic != result.topic:
            self.flush()
        self._open.append(result)

    def flush(self) -> None:
        """Write the topic that is open."""
        if self._open:
            self._out.lines(topic_lines(self._open))
        self._open = []
