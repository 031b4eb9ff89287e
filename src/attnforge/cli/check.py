"""``attnforge check``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnforge.check.cases import TOPICS
from attnforge.cli.requests import add_environment_options
from attnforge.cli.several import report_each
from attnforge.cli.show_check import check_lines, topic_lines
from attnforge.cli.terminal import Terminal
from attnforge.errors import RequestError
from attnforge.model.check import CaseResult, CheckReport
from attnforge.workflow.checking import TIMEOUT, check, write_check
from attnforge.workflow.machine import Machine


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument("wheels", nargs="+", metavar="WHEEL", type=Path)
    add_environment_options(parser, "create an environment with this PyTorch")
    parser.add_argument("--only", metavar="TOPICS", help="run only cases of these topics: softcap,paged")
    parser.add_argument("--quick", action="store_true", help="use fewer shapes and no long sequences")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=TIMEOUT,
        help=f"time limit for each case (default: {TIMEOUT:g})",
    )
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="also write each report there, as WHEEL.check.json")
    parser.add_argument("--json", action="store_true", help="print reports as JSON; an array for several wheels")


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
    return report_each(
        arguments.wheels,
        lambda wheel: checked(machine, wheel, arguments, out),
        out,
        as_json=arguments.json,
        show=lambda report: None,  # it was printed while its cases ran
    )


def checked(machine: Machine, wheel: Path, arguments: argparse.Namespace, out: Terminal) -> CheckReport:
    """Check a wheel with the options of the command line; print results unless JSON is requested."""
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
    """Check a wheel. Print a line for each topic when its cases are done, and the findings at the end."""
    out.lines([wheel.name])
    topics = _Topics(out)
    report = check(machine, wheel, **options, observe=topics.add, tell=lambda line: out.lines([line]))
    topics.flush()
    out.lines(check_lines(report))
    return report


class _Topics:
    """Prints a line for each topic after its last case. Results arrive topic by topic."""

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
