"""``attnforge audit``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from attnforge.cli.requests import add_environment_options
from attnforge.cli.several import report_each
from attnforge.cli.show import audit_lines, comparison_lines
from attnforge.cli.terminal import Terminal
from attnforge.errors import RequestError
from attnforge.workflow.auditing import audit
from attnforge.workflow.machine import Machine


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument("wheels", nargs="+", metavar="WHEEL", type=Path)
    add_environment_options(parser, "check against this PyTorch, installed into the cache if needed")
    parser.add_argument("--compare", action="store_true", help="only compare the machine code of two wheels")
    parser.add_argument("--json", action="store_true", help="print reports as JSON; an array for several wheels")


def run(arguments: argparse.Namespace, environ: Mapping[str, str], out: Terminal) -> int:
    """Print what is in the wheels; the exit code is the worst of them."""
    if arguments.compare:
        return _compare(arguments, out)
    machine, python, torch = Machine(environ), arguments.python or "", arguments.torch or ""
    tell = (lambda line: None) if arguments.json else (lambda line: out.lines([line]))
    return report_each(
        arguments.wheels,
        lambda wheel: audit(machine, wheel, python, torch, arguments.wheels, tell),
        out,
        as_json=arguments.json,
        show=lambda report: out.lines(audit_lines(report)),
    )


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
