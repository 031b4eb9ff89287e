"""Measures what a side takes: CPU seconds of all its processes, wall seconds, the memory that they hold together."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

SAMPLE_SECONDS = 0.25

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TAIL = 4000  # characters of a failed command's output that are shown


@dataclass(frozen=True, slots=True)
class Run:
    """What one run took: ``cpu`` seconds (user and system) of all its processes, ``wall`` seconds, ``peak_bytes``.

    ``peak_bytes`` is the most resident memory of all its processes at once, as far as samples saw it; pages that
    processes share count in each.
    """

    cpu: float
    wall: float
    peak_bytes: int

    def __str__(self) -> str:
        return f"{self.cpu:.1f} s of CPU in {self.wall:.1f} s, {self.peak_bytes / 1e9:.1f} GB"


def say(text: str) -> None:
    """Tell whoever waits what happens, beside the result."""
    print(text, file=sys.stderr, flush=True)


def measured(work: Callable[[], object]) -> Run:
    """Do something by processes of which each is waited for, and return what they took.

    Only processes that ended and were waited for count: a server has to be stopped within ``work``.
    """
    before, began = _used(), time.monotonic()
    with Memory() as memory:
        work()
    return Run(round(_used() - before, 3), round(time.monotonic() - began, 3), memory.peak_bytes)


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def command(argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> str:
    """Run a command to its end and return its standard output; SystemExit with what it printed where it fails."""
    done = subprocess.run(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout[-_TAIL:]}{done.stderr[-_TAIL:]}")
    return done.stdout


class Memory:
    """Samples, while it is entered, the memory of the processes that this one started and of those that they started.

    ``name`` counts only those of that program name (/proc/PID/comm).
    """

    def __init__(self, name: str = "", seconds: float = SAMPLE_SECONDS) -> None:
        """Sample every so many seconds."""
        self.peak_bytes = 0
        self._name = name
        self._seconds = seconds
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._end.wait(self._seconds):
            self.peak_bytes = max(self.peak_bytes, self._held())

    def _held(self) -> int:
        found = processes()
        below = descendants(os.getpid(), {pid: process.parent for pid, process in found.items()})
        return sum(found[pid].resident for pid in below if self._name in ("", found[pid].name))


@dataclass(frozen=True, slots=True)
class Process:
    """A process as /proc/PID/stat tells it: resident memory in bytes."""

    name: str
    parent: int
    resident: int


def processes(proc: Path = Path("/proc")) -> dict[int, Process]:
    """Return all processes by their id."""
    found = {}
    for entry in os.listdir(proc):  # noqa: PTH208 - a Path for each process doubles the cost
        if entry.isdecimal():
            try:
                found[int(entry)] = process_of((proc / entry / "stat").read_bytes())
            except (OSError, ValueError, IndexError):
                continue  # It has ended.
    return found


def process_of(stat: bytes) -> Process:
    """Read the text of /proc/PID/stat: fields 2, 4 and 24 of proc(5). The name may hold anything."""
    opened, closed = stat.index(b"("), stat.rindex(b")")
    fields = stat[closed + 2 :].split()
    return Process(stat[opened + 1 : closed].decode(errors="replace"), int(fields[1]), int(fields[21]) * _PAGE)


def descendants(root: int, parents: Mapping[int, int]) -> set[int]:
    """Return the processes below ``root``, from the parent of each."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    waiting = [root]
    while waiting:
        below = set(children.get(waiting.pop(), ())) - found
        found |= below
        waiting += below
    return found
