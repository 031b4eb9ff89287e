"""Options that several verbs share, and the requests made from those of ``plan`` and ``build``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnforge.config import current_folder, from_environment, from_project
from attnforge.errors import RequestError
from attnforge.model.request import Request
from attnforge.options import OPTIONS, check_text, merge


def add_request_options(parser: argparse.ArgumentParser) -> None:
    """Add the packages and the target options."""
    parser.add_argument(
        "packages",
        nargs="+",
        metavar="PACKAGE",
        help="NAME, NAME==VERSION, NAME@REF, git+URL@REF, a path to a folder or archive, or your own recipe: "
        "./NAME.toml",
    )
    group = parser.add_argument_group(
        "target", "also from [tool.attnforge] in pyproject.toml and from ATTNFORGE_* variables"
    )
    for option in OPTIONS:
        flag, dest = f"--{option.name}", f"option {option.name}"
        if option.kind == "flag":
            # None where it is not given: the environment or the project's file then decides.
            group.add_argument(flag, action="store_const", const=True, help=option.described, dest=dest)
            continue
        # A list may also be given word by word: --gpu L40S --gpu H100.
        action = "append" if option.kind in ("list", "numbers") else "store"
        group.add_argument(flag, action=action, metavar=option.metavar, help=option.described, dest=dest)


def add_environment_options(parser: argparse.ArgumentParser, torch: str) -> None:
    """Add --python, --env and --torch to a verb that takes wheels; ``torch`` says what it does with a version."""
    parser.add_argument(
        "--python",
        "--env",
        metavar="PATH",
        help="use this interpreter or environment with its PyTorch; nothing is installed there (default: the active "
        "environment, for wheels built for its PyTorch)",
    )
    parser.add_argument(
        "--torch", metavar="VERSION", help=f"{torch}; or `installed`, the PyTorch of the active environment"
    )


def read_requests(arguments: argparse.Namespace, environ: Mapping[str, str]) -> list[Request]:
    """Return a request for each package. The command line overrides the environment, which overrides the project."""
    given = {
        name.removeprefix("option "): value for name, value in vars(arguments).items() if name.startswith("option ")
    }
    fields = merge(given, from_environment(environ), from_project(current_folder()))
    return [Request(package=_package(package), **fields) for package in arguments.packages]


def _package(text: str) -> str:
    try:
        return check_text(text)
    except ValueError as error:
        raise RequestError(
            f"{text!r} is not a package name", why=str(error), hint="write NAME, NAME==VERSION or ./FOLDER"
        ) from None


def configured(name: str, environ: Mapping[str, str]) -> str:
    """Return an option's value from the environment, else from the project's file, else ""."""
    return str(from_environment(environ).get(name) or from_project(current_folder()).get(name) or "")


def read_out(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Path:
    """Return the folder for wheels: the option, else the environment, else the project's file, else ``dist``."""
    named: Any = arguments.out or environ.get("ATTNFORGE_OUT") or from_project(current_folder()).get("out")
    if named is not None and not isinstance(named, str):
        raise RequestError(f"out in [tool.attnforge] can't be {named!r}", hint='out = "FOLDER"')
    return expanded(check_folder(named or "dist"))


def check_folder(text: str) -> str:
    """Return the name of a folder; RequestError for one that no file system has."""
    try:
        return check_text(text)
    except ValueError as error:
        raise RequestError(f"{text!r} can't be a folder", why=str(error), hint="name another with --out") from None


def expanded(text: str) -> Path:
    """Return a path with ~ or ~USER expanded, or unchanged where there is no such user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)
