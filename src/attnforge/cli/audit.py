"""``attnforge audit``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attnforge.cli.show import audit_lines, comparison_lines, error_document
from attnforge.cli.terminal import Terminal
from attnforge.errors import AttnforgeError, RequestError
from attnforge.model.audit import AuditReport
from attnforge.workflow.auditing import audit
from attnforge.workflow.machine import Machine

# Its document, what writes it as text, and its exit code.
_Audited = tuple[dict[str, Any], Callable[[Terminal], None], int]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument("wheels", nargs="+", metavar="WHEEL", type=Path)
    parser.add_argument(
        "--python",
        "--env",
        metavar="PATH",
        help="interpreter or environment whose PyTorch the wheels are checked against (default: the active "
        "environment, for wheels built for its PyTorch)",
    )
    parser.add_argument(
        "--torch",
        metavar="VERSION",
        help="PyTorch to check the wheels against, installed into the cache if needed; or `installed`, the one in the "
        "active environment",
    )
    parser.add_argument("--compare", action="store_true", help="only compare the machine code of two wheels")
    parser.add_argument("--json", action="store_true", help="print reports as JSON; an array for several wheels")


def run(arguments: argparse.Namespace, environ: Mapping[str, str], out: Terminal) -> int:
    """Print what is in the wheels; the exit code is the worst of them."""
    if arguments.compare:
        return _compare(arguments, out)
    machine = Machine(environ)
    wheels: list[Path] = arguments.wheels
    if len(wheels) == 1:
        return _show(_report(machine, wheels[0], arguments, out), arguments.json, out)
    results = [_audited(machine, wheel, arguments, out) for wheel in wheels]
    if arguments.json:
        out.json([document for document, _, _ in results])
    else:
        for _, say, _ in results:
            say(out)
    codes = [code for _, _, code in results]
    # A bad wheel (5) outranks one that could not be checked (6).
    return 5 if 5 in codes else max(codes)


def _compare(arguments: argparse.Namespace, out: Terminal) -> int:
    from attnforge.audit.compare import compare_wheels

    if len(arguments.wheels) != 2:
        count = len(arguments.wheels)
        raise RequestError(f"--compare takes two wheels, not {count}", hint="attnforge audit --compare A.whl B.whl")
    if arguments.python or arguments.torch:
        raise RequestError(
            "--compare can't be used with --python or --torch",
            why="it compares only device code, which does not depend on PyTorch",
            hint="audit the wheels without --compare to check their symbols",
        )
    comparison = compare_wheels(*arguments.wheels)
    if arguments.json:
        out.json(comparison.to_json())
    else:
        out.lines(comparison_lines(comparison))
    return comparison.exit_code


def _show(report: AuditReport, as_json: bool, out: Terminal) -> int:
    if as_json:
        out.json(report.to_json())
    else:
        out.lines(audit_lines(report))
    return report.exit_code


def _report(machine: Machine, wheel: Path, arguments: argparse.Namespace, out: Terminal) -> AuditReport:
    """Audit a wheel. Unless JSON is requested, print the environment that it is checked against."""
    tell = (lambda line: None) if arguments.json else (lambda line: out.lines([line]))
    return audit(machine, wheel, arguments.python or "", arguments.torch or "", arguments.wheels, tell)


def _audited(machine: Machine, wheel: Path, arguments: argparse.Namespace, out: Terminal) -> _Audited:
    """Audit one of several. A wheel that can't be read does not stop the others."""
    try:
        report = _report(machine, wheel, arguments, out)
    except AttnforgeError as error:
        caught = error
        return (
            {"wheel": wheel.name, **error_document(error)},
            lambda out: out.error(caught, wheel.name),
            error.exit_code,
        )
    return report.to_json(), lambda out: out.lines(audit_lines(report)), report.exit_code
