"""Runs one nvcc call step by step, so that the same source gives the same object.

nvcc names its temporary files by process id, and cudafe++ makes a module id that holds a process id and a hash of the
path; both end up in symbol names inside the object. ``nvcc --dryrun`` prints the steps (preprocess, cudafe++, cicc,
ptxas, fatbinary, host compile), so here the same steps run with names that follow from the source alone.

Run as a program of its own: ``python steps.py MODULE_ID -- nvcc ARG ...``. Standard library only, since it is
started once for each unit. Where the printed steps have a form that is not known, nvcc runs as it is.
"""

from __future__ import annotations

import os
import re
import shlex
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PREFIX = "#$ "
_ASSIGNMENT = re.compile(r"(?P<name>[A-Za-z_]\w*)=(?P<value>.*)")
_TEMPORARY = re.compile(r"(?P<folder>[^\s\"'=,]*/)?tmpxft_[0-9a-f]+_[0-9a-f]+-(?P<rest>[^\s\"',]+)")
_ELF_HEADER = 64
_FULL = 1 << 20  # bytes; what a step writes is larger
_DEPENDENCY_OPTIONS = {"-MD": 1, "-MMD": 1, "--generate-dependencies-with-compile": 1, "-MF": 2}


class UnknownStepsError(Exception):
    """nvcc printed steps of a form that is not known here."""


@dataclass(frozen=True)
class Steps:
    """What ``nvcc --dryrun`` printed: settings for the steps' environment, and the commands in order."""

    environment: dict[str, str]
    commands: tuple[tuple[str, ...], ...]


def parse(text: str) -> Steps:
    """Read the output of ``nvcc --dryrun``. Raises UnknownStepsError where a line has no known form."""
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
    return Steps(environment, tuple(commands))


def _command(body: str, environment: dict[str, str]) -> tuple[str, ...]:
    expanded = body.replace("$CICC_PATH", environment.get("CICC_PATH", "$CICC_PATH"))
    words = shlex.split(expanded)
    if any(word in {"&&", "||", ";", "|", ">", "<"} or "$" in word for word in words):
        raise UnknownStepsError(body)
    return tuple(words)


def settle(steps: Steps, folder: str, module_id_file: str) -> Steps:
    """Give every temporary file a name that does not depend on the process, in ``folder``.

    cudafe++ is told to read the module id instead of making one up. Raises UnknownStepsError if it was not asked to.
    """
    commands = tuple(tuple(_rename(word, folder) for word in command) for command in steps.commands)
    settled = tuple(_with_module_id(command, module_id_file) for command in commands)
    if not any("--module_id_file_name" in command for command in settled):
        raise UnknownStepsError("no module id")
    return Steps(steps.environment, settled)


def _rename(word: str, folder: str) -> str:
    return _TEMPORARY.sub(lambda match: (folder + "/" if match["folder"] else "") + "unit-" + match["rest"], word)


def _with_module_id(command: tuple[str, ...], module_id_file: str) -> tuple[str, ...]:
    words = [word for word in command if word != "--gen_module_id_file"]
    for at, word in enumerate(words[:-1]):
        if word == "--module_id_file_name":
            words[at + 1] = module_id_file
    return tuple(words)


def without_dependencies(argv: Sequence[str]) -> list[str]:
    """Return an nvcc call without the options that write a dependency file: attnforge keys objects by content."""
    kept, skip = [], 0
    for word in argv:
        if skip:
            skip -= 1
        elif word in _DEPENDENCY_OPTIONS:
            skip = _DEPENDENCY_OPTIONS[word] - 1
        else:
            kept.append(word)
    return kept


def run(module_id: str, argv: Sequence[str]) -> int:
    """Run an nvcc call by its steps; return the exit code of the first that fails, or 0."""
    call = without_dependencies(argv)
    with tempfile.TemporaryDirectory(prefix="steps-") as folder:
        module_id_file = Path(folder) / "unit.module_id"
        module_id_file.write_text(module_id)
        try:
            steps = settle(parse(_dryrun(call)), folder, str(module_id_file))
        except (UnknownStepsError, ValueError):
            return _run_step(call, dict(os.environ))
        return _run_steps(steps, folder)


def _dryrun(call: Sequence[str]) -> str:
    listing = subprocess.run([call[0], "--dryrun", *call[1:]], capture_output=True, text=True, errors="replace")
    return listing.stderr


def _run_steps(steps: Steps, folder: str) -> int:
    searched = {key: value for key, value in steps.environment.items() if key in ("PATH", "LD_LIBRARY_PATH")}
    for command in steps.commands:
        code = _run_step(command, {**os.environ, **searched}) or int(_is_cut_short(command))
        if code:
            _tell_if_full(folder)
            return code
    return 0


def _is_cut_short(command: Sequence[str]) -> bool:
    """Say whether ptxas wrote a part of its output only: on a full disk that of CUDA 13.0 does, and exits with 0."""
    if Path(command[0]).name != "ptxas" or "-o" not in command[:-1]:
        return False
    output = command[command.index("-o") + 1]
    if is_whole(Path(output)):
        return False
    print(f"ptxas error : {output} is not whole", file=sys.stderr, flush=True)  # noqa: T201
    return True


def is_whole(image: Path) -> bool:
    """Say whether an ELF image is as long as its header says. In a cubin both tables come last (seen with 13.0)."""
    with image.open("rb") as file:
        header = file.read(_ELF_HEADER)
        size = file.seek(0, os.SEEK_END)
    if len(header) < _ELF_HEADER:
        return False
    programs, sections = struct.unpack_from("<QQ", header, 32)
    program_size, program_count, section_size, section_count = struct.unpack_from("<HHHH", header, 54)
    return bool(size >= max(programs + program_size * program_count, sections + section_size * section_count))


def _tell_if_full(folder: str) -> None:
    """Say so where the disk is full: cicc then ends by a segmentation fault, and fatbinary names no reason (13.0)."""
    space = os.statvfs(folder)
    blocks = space.f_bfree if os.geteuid() == 0 else space.f_bavail
    if blocks * space.f_frsize < _FULL:
        print(f"{folder}: No space left on device", file=sys.stderr, flush=True)  # noqa: T201


def _run_step(command: Sequence[str], environment: dict[str, str]) -> int:
    if command[0] == "rm":
        for name in command[1:]:
            Path(name).unlink(missing_ok=True)
        return 0
    code = subprocess.run(command, env=environment).returncode
    if code < 0:
        print(f"'{Path(command[0]).name}' died due to signal {-code}", file=sys.stderr, flush=True)  # noqa: T201
        return 128 - code
    return code


def main(arguments: Sequence[str]) -> int:
    """Run as ``steps.py MODULE_ID -- nvcc ARG ...``."""
    if len(arguments) < 3 or arguments[1] != "--":
        print("usage: steps.py MODULE_ID -- nvcc ARG ...", file=sys.stderr)  # noqa: T201
        return 2
    return run(arguments[0], arguments[2:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
