"""The program that sits where ninja sits. Run as a script by an executable named ``ninja`` that is first on PATH.

It answers ``--version`` by itself and hands everything else to the build that runs it, through a Unix socket. It
imports the standard library only, and of that only what it needs: json, socket and pathlib would each double the time
of ``--version``, which upstream's build asks for several times.

One request, as a line of JSON: cwd, file, targets, dry_run, environment. Answers, each a line of JSON:
``{"line": TEXT}`` is printed, ``{"exit": CODE}`` is the last.
"""

from __future__ import annotations

import os
import sys

# PyTorch asks for the version to learn whether there is a ninja (torch/utils/cpp_extension.py, is_ninja_available).
VERSION = "1.13.0"

_WITH_VALUE = frozenset(("-j", "-k", "-l", "-d", "-w"))
# Tools that tidy up ninja's own logs. CMake calls them; there are none here.
_OF_LOGS = frozenset(("cleandead", "recompact", "restat"))
_USAGE = "usage: ninja [-v] [-n] [-C DIR] [-f FILE] [-j N] [-k N] [-l N] [targets]   (attnforge in place of ninja)"

# sun_path holds 108 bytes with its final zero (unix(7)).
_MAX_ADDRESS = 107


class Usage(Exception):  # noqa: N818 - it is not always an error
    """What to print instead of building, and the exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class Options:
    """A command line of ninja's. The number of jobs is ignored: the build's scheduler decides it."""

    def __init__(self, arguments: list[str]) -> None:
        """Read the arguments; Usage for what only prints or can't be done."""
        self.file = "build.ninja"
        self.folder = ""
        self.dry_run = False
        self.targets: list[str] = []
        rest = list(arguments)
        while rest:
            self._read(rest.pop(0), rest)

    def _read(self, argument: str, rest: list[str]) -> None:
        if argument == "--version":
            raise Usage(VERSION, 0)
        if argument in ("-h", "--help"):
            raise Usage(_USAGE, 0)
        if argument in ("-v", "--verbose", "--quiet"):
            return
        if argument == "-n":
            self.dry_run = True
        elif argument == "--":
            self.targets += rest
            rest.clear()
        elif argument.startswith("-t"):
            self._refuse_tool(argument[2:] or (rest or [""])[0])
        elif argument.startswith("-"):
            self._read_short(argument[:2], argument[2:], argument, rest)
        else:
            self.targets.append(argument)

    @staticmethod
    def _refuse_tool(name: str) -> None:
        if name in _OF_LOGS:
            raise Usage("", 0)
        raise Usage(f"attnforge's ninja has no tool {name} (-t): it only compiles for the build that runs it", 1)

    def _read_short(self, name: str, value: str, argument: str, rest: list[str]) -> None:
        if name not in _WITH_VALUE and name not in ("-C", "-f"):
            raise Usage(f"ninja: unknown option {argument}\n{_USAGE}", 1)
        if not value:
            if not rest:
                raise Usage(f"ninja: option {name} needs a value\n{_USAGE}", 1)
            value = rest.pop(0)
        if name == "-C":
            self.folder = value
        elif name == "-f":
            self.file = value


def address(path: str) -> tuple[str, int]:
    """Return a socket address for a path of any length, and the descriptor to close after use (-1: none).

    A path that is too long is reached through the descriptor of its folder.
    """
    if len(os.fsencode(path)) <= _MAX_ADDRESS:
        return path, -1
    folder, name = os.path.split(path)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{descriptor}/{name}", descriptor


def ask(path: str, options: Options) -> int:
    """Send the request, print what comes back, return the exit code. ConnectionError or OSError: the build is gone."""
    import json
    import socket

    request = {
        "cwd": os.path.join(os.getcwd(), options.folder) if options.folder else os.getcwd(),  # noqa: PTH109, PTH118
        "file": options.file,
        "targets": options.targets,
        "dry_run": options.dry_run,
        "environment": dict(os.environ),
    }
    where, descriptor = address(path)
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(where)
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("r", encoding="utf-8") as answers:
            for answer in map(json.loads, answers):
                if "exit" in answer:
                    return int(answer["exit"])
                _print(answer["line"])
    raise ConnectionError("it ended without an answer")


def _print(line: str) -> None:
    # Upstream's log may be in ASCII: a source with another letter in its name must not end the build.
    sys.stdout.buffer.write(line.encode("utf-8", "surrogateescape") + b"\n")
    sys.stdout.buffer.flush()


def main(arguments: list[str]) -> int:
    """Act as ninja: the first argument is the socket's path, the others are ninja's."""
    try:
        return ask(arguments[0], Options(arguments[1:]))
    except Usage as usage:
        if usage.text:
            _print(usage.text)
        return usage.code
    except (OSError, ValueError) as error:
        _print(f"ninja: the attnforge build that this program belongs to can't be reached: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
