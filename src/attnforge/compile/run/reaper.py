"""A tiny process that outlives a build that was killed, ends the compilers that it left and removes its folders.

Run as a script by the build (standard library only). It reads lines from its standard input, a pipe that only the
build and, until their exec, its compilers hold: ``+N`` a process group began, ``-N`` it ended. At the end of input,
however it came, the groups that are left are killed and the folders that were given as arguments are removed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable


def watch(lines: Iterable[str]) -> set[int]:
    """Return the groups that began and did not end, from an iterable of lines."""
    groups: set[int] = set()
    for line in lines:
        sign, number = line[:1], line[1:].strip()
        if sign in ("+", "-") and number.isdecimal():
            (groups.add if sign == "+" else groups.discard)(int(number))
    return groups


def main(folders: list[str]) -> None:
    """Wait for the end of the build, then clean up after it."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    for group in watch(sys.stdin):
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    if folders:
        import shutil

        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
