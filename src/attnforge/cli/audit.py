"""``attnforge audit``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from attnforge.cli.show import audit_lines, comparison_lines, error_document
from attnforge.errors import AttnforgeError, RequestError
from attnforge.model.audit import AuditReport
from attnforge.workflow.auditing import audit
from attnforge.workflow.machine import Machine


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument("wheels", nargs="+", metavar="WHEEL", type=Path)
    parser.add_argument("--python", metavar="PATH", help="an interpreter whose PyTorch the wheels are held against")
    parser.add_argument("--torch", metavar="VERSION", help="the PyTorch to hold them against, installed if need be")
    parser.add_argument(
        "--compare", action="store_true", help="whether two wheels hold the same machine code; nothing else is audited"
    )
    parser.add_argument("--json", action="store_true", help="the reports as JSON; an array where there are several")


def run(arguments: argparse.Namespace, environ: Mapping[str, str], out: TextIO) -> int:
    """Print what is in the wheels; the exit code is the worst of them."""
    if arguments.compare:
        return _compare(arguments, out)
    machine = Machine(environ)
    wheels: list[Path] = arguments.wheels
    if len(wheels) == 1:
        return _show(audit(machine, wheels[0], arguments.python or "", arguments.torch or ""), arguments.json, out)
    results = [_audited(machine, wheel, arguments) for wheel in wheels]
    if arguments.json:
        out.write(json.dumps([document for document, _, _ in results], indent=1) + "\n")
    else:
        out.write("".join(text for _, text, _ in results))
    codes = [code for _, _, code in results]
    # A bad wheel is said before one that could not be checked.
    return 5 if 5 in codes else max(codes)


def _compare(arguments: argparse.Namespace, out: TextIO) -> int:
    from attnforge.audit.compare import compare_wheels

    if len(arguments.wheels) != 2:
        count = len(arguments.wheels)
        raise RequestError(f"--compare takes two wheels, not {count}", hint="attnforge audit --compare A.whl B.whl")
    if arguments.python or arguments.torch:
        raise RequestError(
            "--compare does not go with --python or --torch",
            why="it looks at device code alone, which no PyTorch is held against",
            hint="audit the wheels without --compare for their symbols",
        )
    comparison = compare_wheels(*arguments.wheels)
    lines = [json.dumps(comparison.to_json(), indent=1)] if arguments.json else comparison_lines(comparison)
    out.write("\n".join(lines) + "\n")
    return comparison.exit_code


def _show(report: AuditReport, as_json: bool, out: TextIO) -> int:
    out.write(json.dumps(report.to_json(), indent=1) + "\n" if as_json else "\n".join(audit_lines(report)) + "\n")
    return report.exit_code


def _audited(machine: Machine, wheel: Path, arguments: argparse.Namespace) -> tuple[dict[str, Any], str, int]:
    """Audit one of several: a wheel that can't be read must not keep the others from being looked at."""
    try:
        report = audit(machine, wheel, arguments.python or "", arguments.torch or "")
    except AttnforgeError as error:
        return {"wheel": wheel.name, **error_document(error)}, f"{wheel.name}: {error}\n", error.exit_code
    return report.to_json(), "\n".join(audit_lines(report)) + "\n", report.exit_code
