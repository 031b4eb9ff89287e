"""``attnforge build``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from attnforge.cli.display import observer, write_line
from attnforge.cli.requests import add_request_options, read_out, read_requests
from attnforge.cli.show import plan_lines
from attnforge.cli.terminal import Terminal
from attnforge.model.events import Observer
from attnforge.workflow.machine import Machine
from attnforge.workflow.planning import Planned, plan
from attnforge.workflow.results import Built
from attnforge.workflow.uptodate import up_to_date


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    add_request_options(parser)
    parser.add_argument("--out", metavar="FOLDER", help="where wheels and reports go (default: dist)")
    parser.add_argument("--json", action="store_true", help="print events as JSON, one a line; the last is the result")
    parser.add_argument(
        "--check",
        action="store_true",
        help="check each wheel on the GPU of this machine and write the report beside it",
    )
    parser.add_argument("--plain", action="store_true", help="print plain lines even on a terminal")


def run(arguments: argparse.Namespace, environ: Mapping[str, str], out: Terminal) -> int:
    """Build the wheels, one package after the other; all are planned before the first is built."""
    machine = Machine(environ)
    planned = [plan(machine, request) for request in read_requests(arguments, environ)]
    folder = read_out(arguments, environ)
    codes: list[int] = []
    for one in planned:
        if arguments.json:
            write_line({"event": "Planned", **one.resolution.public()}, out)
            built = build(machine, one, folder, lambda event: write_line(event.to_json(), out))
            write_line({"event": "Audited", **built.audit.to_json()}, out)
        else:
            out.lines(plan_lines(one.resolution, explain=False))
            with observer(out, plain=arguments.plain) as observe:
                built = build(machine, one, folder, observe)
        codes.append(built.audit.exit_code)
        if arguments.check:
            codes.append(_checked(machine, built.wheel, arguments.json, out))
    return 5 if 5 in codes else max(codes, default=0)  # a bad wheel is said before one that could not be checked


def build(machine: Machine, planned: Planned, folder: Path, observe: Observer) -> Built:
    """Build a wheel, unless an earlier build has: what builds is loaded only where there is something to do."""
    done = up_to_date(machine.folders, planned.plan, folder, observe)
    if done is not None:
        return done
    from attnforge.workflow import building

    return building.build(machine, planned, folder, observe)


def _checked(machine: Machine, wheel: Path, as_json: bool, out: Terminal) -> int:
    """Check a wheel that was built, keep the report beside it, and return the exit code."""
    from attnforge.cli.check import tell_check
    from attnforge.workflow.checking import check, write_check

    report = check(machine, wheel) if as_json else tell_check(machine, wheel, out)
    write_check(report, wheel.parent)
    if as_json:
        write_line({"event": "Checked", **report.to_json()}, out)
    return report.exit_code
