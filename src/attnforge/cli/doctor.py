"""``attnforge doctor``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TextIO

from attnforge.cli.requests import configured
from attnforge.cli.show import finding_lines
from attnforge.host.doctor import examine, verdict
from attnforge.workflow.machine import Machine
from attnforge.workflow.results import examine_store


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument("--cuda", metavar="X.Y", default="", help="the CUDA of the target, to hold compilers against")
    parser.add_argument("--json", action="store_true", help="the findings and the machine as JSON")


def run(arguments: argparse.Namespace, environ: Mapping[str, str], out: TextIO) -> int:
    """Print what was found."""
    host = Machine(environ).host
    findings = (*examine(host, arguments.cuda), *examine_store(configured("store", environ), environ))
    code = verdict(findings)
    if arguments.json:
        found = [finding.to_json() for finding in findings]
        out.write(
            json.dumps({"schema": 1, "host": host.to_json(), "findings": found, "exit_code": code}, indent=1) + "\n"
        )
        return code
    for finding in findings:
        out.write("\n".join(finding_lines(finding)) + "\n")
    return code
