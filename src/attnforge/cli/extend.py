"""``attnforge extend``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from attnforge.cli.display import observer, write_line
from attnforge.cli.requests import read_out
from attnforge.cli.terminal import Terminal
from attnforge.config import current_folder, from_environment, from_project
from attnforge.model.request import Request
from attnforge.options import OPTIONS, merge
from attnforge.workflow.extending import extend
from attnforge.workflow.extension import Extension, plan_extension
from attnforge.workflow.machine import Machine

# The build options that an extension takes. Everything else comes from the wheel.
_TAKEN = ("torch", "env", "python", "source", "toolchain", "cuda-mirror", "jobs", "memory", "store", "cache-limit")

_HELP = {
    "torch": "PyTorch versions to add: 2.14, 2.13,2.14 or 2.13-2.14; or `installed`, the active environment's, with "
    "its Python (default: the versions in the wheel)",
    "env": "add the PyTorch of this environment, with its Python: a folder or an interpreter",
    "python": "Pythons to add: 3.14, 3.13,3.14 or 3.12-3.14 (default: the Pythons in the wheel)",
    "source": "the folder or archive that the wheel was built from, or git+URL of a repository with its commit",
    "jobs": "build at most N pairs at once (default: the processors of this machine)",
}

# Configured values of these are for builds; here they would change what is added.
_SAID_HERE = ("torch", "env", "python", "source")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument("wheel", metavar="WHEEL", type=Path, help="a universal wheel built by attnforge")
    for option in OPTIONS:
        if option.name in _TAKEN:
            told = _HELP.get(option.name, option.described)
            parser.add_argument(f"--{option.name}", metavar=option.metavar, help=told, dest=f"option {option.name}")
    parser.add_argument("--recipe", metavar="FILE", default="", help="your own recipe, if the wheel was built with one")
    parser.add_argument("--out", metavar="FOLDER", help="where the wheel and its report go (default: dist)")
    parser.add_argument("--json", action="store_true", help="print events as JSON, one a line; the last is the audit")
    parser.add_argument("--plain", action="store_true", help="print plain lines even on a terminal")


def run(arguments: argparse.Namespace, environ: Mapping[str, str], out: Terminal) -> int:
    """Build the wheel with the added pairs."""
    machine, folder = Machine(environ), read_out(arguments, environ)
    extension = plan_extension(machine, arguments.wheel, _request(arguments, environ), arguments.recipe)
    if arguments.json:
        built = extend(machine, extension, folder, lambda event: write_line(event.to_json(), out))
        write_line({"event": "Audited", **built.audit.to_json()}, out)
    else:
        out.lines(_lines(extension))
        with observer(out, plain=arguments.plain) as observe:
            built = extend(machine, extension, folder, observe)
    return built.audit.exit_code


def _request(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Request:
    given = {name: getattr(arguments, f"option {name}") for name in _TAKEN}
    left = [option.name for option in OPTIONS if option.name not in _TAKEN or option.name in _SAID_HERE]
    configured = [source.without(*left) for source in (from_environment(environ), from_project(current_folder()))]
    return Request(package="", universal=True, **merge(given, *configured))


def _lines(extension: Extension) -> list[str]:
    plan = extension.plan
    return [
        f"{plan.package} {plan.version}  ({extension.wheel.name})",
        f"  adds       {', '.join(map(str, extension.pairs))}",
        f"  wheel      {plan.wheel}",
        f"  plan       {plan.digest}",
        *(f"  warning    {warning.message}" for warning in extension.warnings),
    ]
