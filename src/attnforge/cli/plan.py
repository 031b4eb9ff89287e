"""``attnforge plan``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from attnforge.cli.requests import add_request_options, read_requests
from attnforge.cli.show import all_fetched, plan_lines
from attnforge.cli.terminal import Terminal
from attnforge.workflow.machine import Machine
from attnforge.workflow.planning import plan


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    add_request_options(parser)
    parser.add_argument(
        "--explain", action="store_true", help="show each decision with its reason and what was rejected"
    )
    parser.add_argument("--json", action="store_true", help="print the plan as JSON; an array for several packages")


def run(arguments: argparse.Namespace, environ: Mapping[str, str], out: Terminal) -> int:
    """Print the plans."""
    machine = Machine(environ)
    resolutions = [plan(machine, request).resolution for request in read_requests(arguments, environ)]
    if arguments.json:
        documents = [resolution.public() for resolution in resolutions]
        out.json(documents[0] if len(documents) == 1 else documents)
        return 0
    for resolution in resolutions:
        out.lines(plan_lines(resolution, explain=arguments.explain))
    if len(resolutions) > 1:
        out.lines(all_fetched(resolutions))
    return 0
