"""A tiny process that outlives an attnforge that was killed, ends what it left running and removes its folders.

Run as a script (standard library only). It reads lines from its standard input, a pipe that only attnforge and, until
their exec, its children hold: ``+N`` a session began, ``-N`` it ended, ``>PATH`` a temporary folder is made, ``<PATH``
it is gone. At the end of input, however it came, the sessions that are left are killed, and then, when nothing of them
runs, the folders are removed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable

# How long something that was killed may take to end, in seconds: while it waits for a slow disk.
_PATIENCE = 10.0


def watch(lines: Iterable[bytes]) -> tuple[set[int], set[str]]:
    """Return the sessions and the folders that are left, from an iterable of lines."""
    sessions: set[int] = set()
    folders: set[str] = set()
    for line in lines:
        sign, name = line[:1], line[1:].rstrip(b"\n")
        if sign in (b"+", b"-") and name.isdigit():
            (sessions.add if sign == b"+" else sessions.discard)(int(name))
        elif sign in (b">", b"<") and name.startswith(b"/"):  # any other name would be one in our own folder
            (folders.add if sign == b">" else folders.discard)(os.fsdecode(name))
    return sessions, folders


def members(sessions: set[int]) -> list[int]:
    """Return the processes of sessions that have not ended. A process group is left more easily than a session."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - pathlib doubles the time that this program takes to start
        try:
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                state, _, _, session = file.read().rpartition(b") ")[2].split()[:4]
        except (OSError, ValueError):
            continue  # It ended meanwhile.
        if int(session) in sessions and state not in (b"Z", b"X"):
            found.append(int(name))
    return found


def end(sessions: set[int]) -> None:
    """Kill sessions, and wait until they are gone."""
    deadline = time.monotonic() + _PATIENCE
    while sessions and time.monotonic() < deadline:
        left = members(sessions)
        if not left:
            return
        for process in left:
            try:
                os.kill(process, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        time.sleep(0.01)


def main() -> None:
    """Wait for the end of attnforge, then clean up after it."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    sessions, folders = watch(sys.stdin.buffer)
    end(sessions)
    if folders:
        import shutil

        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
