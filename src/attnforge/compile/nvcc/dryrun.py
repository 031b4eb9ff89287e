"""Reads what ``nvcc --dryrun`` prints, and gives its temporary files names that follow from the source.

nvcc names its temporary files by process id, and cudafe++ makes a module id that holds a process id and a hash of the
path. Both end up in symbol names inside the object. Here the same steps get names that follow from the source, and
each architecture except the last gets its own folder.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

_PREFIX = "#$ "
_ASSIGNMENT = re.compile(r"(?P<name>[A-Za-z_]\w*)=(?P<value>.*)")
_VARIABLE = re.compile(r"\$(\w+)")
_SHELL = {"&&", "||", ";", "|", "&", ">", "<"}
_TEMPORARY = re.compile(r"tmpxft_[0-9a-f]+_[0-9a-f]+-\d+_(?P<rest>.+)")
MODULE_ID = "--module_id_file_name"

# Options of an nvcc call and how many words they take, which change nothing of an object: dependency files (the
# steps write their own) and how many steps nvcc itself runs at once (ours are run by the engine).
_IDLE = {
    "-MD": 1,
    "-MMD": 1,
    "--generate-dependencies-with-compile": 1,
    "-MF": 2,
    "--dependency-output": 2,
    "--threads": 2,
    "-t": 2,
}
_IDLE_JOINED = re.compile(r"(?:--threads|-t|--dependency-output)=.*|-t\d+")


class UnknownStepsError(Exception):
    """nvcc printed steps of a form that is not known here."""


@dataclass(frozen=True)
class Listing:
    """What ``nvcc --dryrun`` printed: settings for the steps' environment, and the commands in order."""

    environment: dict[str, str]
    commands: tuple[tuple[str, ...], ...]


def dryrun_argv(call: Sequence[str]) -> tuple[str, ...]:
    """Return the command that prints the steps of an nvcc call (to standard error)."""
    return (call[0], "--dryrun", *without_idle(call[1:]))


def without_idle(argv: Sequence[str]) -> list[str]:
    """Return an nvcc call without the options that write a dependency file or run its steps at once."""
    kept, skip = [], 0
    for word in argv:
        if skip:
            skip -= 1
        elif word in _IDLE:
            skip = _IDLE[word] - 1
        elif not _IDLE_JOINED.fullmatch(word):
            kept.append(word)
    return kept


def parse(text: str) -> Listing:
    """Read the output of ``nvcc --dryrun``. Raises UnknownStepsError if a line has no known form."""
    environment: dict[str, str] = {}
    commands = []
    for line in text.splitlines():
        if not line.startswith(_PREFIX):
            continue
        body = line[len(_PREFIX) :].rstrip()
        match = _ASSIGNMENT.fullmatch(body)
        if match:
            environment[match["name"]] = match["value"]
        elif not body.startswith("-- "):
            commands.append(_command(body, environment))
    if not commands:
        raise UnknownStepsError("no steps")
    return Listing(environment, tuple(commands))


def _command(body: str, environment: dict[str, str]) -> tuple[str, ...]:
    expanded = _VARIABLE.sub(lambda match: environment.get(match[1], match[0]), body)
    try:
        words = shlex.split(expanded)
    except ValueError as error:
        raise UnknownStepsError(f"{error}: {body}") from error
    if not words or any(word in _SHELL or word.startswith("2>") or "$" in word or "`" in word for word in words):
        raise UnknownStepsError(body)
    return tuple(words)


# --- names


def settle(listing: Listing, folder: str, module_id_file: str) -> Listing:
    """Give every temporary file a name in ``folder`` that depends only on the source and the architecture.

    Programs are told to read the module id instead of making one up. Files of the last architecture and of the host
    are in ``folder``, those of another in a subfolder, with the names that they would have without the others.
    Raises UnknownStepsError where names or the module id are not as expected.
    """
    names = _Names.of(listing.commands, folder)
    settled = tuple(
        tuple(_with_module_id([names.settled(word) for word in command], module_id_file))
        for command in listing.commands
        if command[0] != "rm"
    )
    return Listing(listing.environment, settled)


@dataclass(frozen=True)
class _Names:
    """How temporary files are named: in ``temporary`` (ends in a slash), after the source's ``stem``.

    ``last`` is the part of the names of the last architecture and of the host (.compute_90), "" for nothing.
    """

    folder: str
    temporary: str
    stem: str
    last: str
    seen: dict[str, str]

    @classmethod
    def of(cls, commands: Iterable[Sequence[str]], folder: str) -> _Names:
        front = next((command for command in commands if PurePosixPath(command[0]).name == "cudafe++"), ())
        source, module_id = value_of(front, "--orig_src_file_name"), value_of(front, MODULE_ID)
        stub, stem = _TEMPORARY.fullmatch(value_of(front, "--stub_file_name")), PurePosixPath(source).stem
        if not source or "tmpxft_" not in module_id or stub is None or not stub["rest"].startswith(stem + "."):
            raise UnknownStepsError("cudafe++ has another form")
        last = stub["rest"][len(stem) :].removesuffix(".cudafe1.stub.c")
        return cls(folder, module_id[: module_id.index("tmpxft_")], stem, last, {})

    def settled(self, word: str) -> str:
        """Return a word with the temporary name in it replaced; UnknownStepsError where two would become one."""
        at = word.find("tmpxft_")
        if at < 0:
            return word
        match = _TEMPORARY.fullmatch(word[at:])
        if match is None or not match["rest"].startswith(self.stem + "."):
            raise UnknownStepsError(word)
        inner = self._inner(match["rest"][len(self.stem) :])
        if self.seen.setdefault(inner, match[0]) != match[0]:
            raise UnknownStepsError(f"{match[0]} and {self.seen[inner]}")
        if not word[:at].endswith(self.temporary):
            return word[:at] + inner
        return f"{word[: at - len(self.temporary)]}{self.folder}/{inner}"

    def _inner(self, rest: str) -> str:
        if self.last and rest.startswith(self.last + "."):
            return self.stem + rest[len(self.last) :]
        architecture, _, suffix = rest[1:].partition(".")
        return f"{architecture}/{self.stem}.{suffix}" if architecture.startswith("compute_") else self.stem + rest


def _with_module_id(command: Sequence[str], module_id_file: str) -> Iterator[str]:
    before = ""
    for word in command:
        if word != "--gen_module_id_file":
            yield module_id_file if before == MODULE_ID else word
        before = word


def value_of(command: Sequence[str], option: str) -> str:
    """Return the word after an option, "" if there is none."""
    return next((value for word, value in pairwise(command) if word == option), "")
