"""``attnforge doctor``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from attnforge.cli.requests import configured
from attnforge.cli.show import finding_lines
from attnforge.cli.terminal import Terminal
from attnforge.host.doctor import examine, verdict
from attnforge.workflow.machine import Machine
from attnforge.workflow.results import examine_store


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "--cuda", metavar="X.Y", default="", help="CUDA of the target, to check nvcc, compilers and driver against"
    )
    parser.add_argument("--json", action="store_true", help="print the findings and the machine as JSON")


def run(arguments: argparse.Namespace, environ: Mapping[str, str], out: Terminal) -> int:
    """Print what was found."""
    machine = Machine(environ)
    host, active = machine.host, machine.active
    findings = (*examine(host, arguments.cuda, active), *examine_store(configured("store", environ), environ))
    code = verdict(findings)
    if arguments.json:
        found = [finding.to_json() for finding in findings]
        out.json(
            {"schema": 1, "host": host.to_json(), "active": active.to_json(), "findings": found, "exit_code": code}
        )
        return code
    for finding in findings:
        out.lines(finding_lines(finding))
    return code
