"""``attnforge audit``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from attnforge.cli.show import audit_lines
from attnforge.workflow.auditing import audit
from attnforge.workflow.machine import Machine


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument("wheels", nargs="+", metavar="WHEEL", type=Path)
    parser.add_argument("--python", metavar="PATH", help="an interpreter whose PyTorch the wheels are held against")
    parser.add_argument("--torch", metavar="VERSION", help="the PyTorch to hold them against, installed if need be")
    parser.add_argument("--json", action="store_true", help="the reports as JSON; an array where there are several")


def run(arguments: argparse.Namespace, environ: Mapping[str, str], out: TextIO) -> int:
    """Print what is in the wheels; the exit code is the worst of them."""
    machine = Machine(environ)
    reports = [audit(machine, wheel, arguments.python or "", arguments.torch or "") for wheel in arguments.wheels]
    if arguments.json:
        documents = [report.to_json() for report in reports]
        out.write(json.dumps(documents[0] if len(documents) == 1 else documents, indent=1) + "\n")
    else:
        for report in reports:
            out.write("\n".join(audit_lines(report)) + "\n")
    codes = [report.exit_code for report in reports]
    # A bad wheel is said before one that could not be checked.
    return 5 if 5 in codes else max(codes)
