"""Measures the memory of running programs, by session, from /proc."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

from attnforge.compile.run.held import Held

# A sample of all processes every so many seconds; less often where it takes long, so that it costs a fiftieth of
# one CPU at most.
SAMPLE_SECONDS = 0.25
SAMPLE_SHARE = 0.02


class Sampler:
    """Measures the memory of sessions while they run, in its own thread. ``sampled`` is called after each sample."""

    def __init__(self, sampled: Callable[[], object] = int) -> None:
        """Start with nothing to measure."""
        self._sampled = sampled
        self._lock = threading.Lock()
        self._held: dict[int, Held] = {}
        self.used_bytes = 0
        """Bytes that all tracked sessions held at the last sample."""
        self.peak_bytes = 0
        """The most bytes that all tracked sessions held at once."""
        self._end = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="memory", daemon=True)
        self._thread.start()

    def track(self, session: int) -> None:
        """Measure a session from now on."""
        with self._lock:
            self._held[session] = Held(began=time.monotonic())
        self._wake.set()

    def held(self, session: int) -> Held:
        """Return what a session was seen to hold so far."""
        with self._lock:
            return self._held.get(session, Held())

    def look(self, session: int, largest: int) -> None:
        """Take note of the most that one process of a session held so far, in bytes."""
        with self._lock:
            if session in self._held:
                self._held[session] = self._held[session].at_least(largest)

    def forget(self, session: int) -> Held:
        """Stop measuring a session; return what it was seen to hold."""
        with self._lock:
            return self._held.pop(session, Held())

    def close(self) -> None:
        """End the thread."""
        self._end.set()
        self._wake.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._end.is_set():
            started = time.monotonic()
            tracked = self._sample()
            took = time.monotonic() - started
            if tracked:
                self._sampled()
            else:
                self._wake.wait()
            self._wake.clear()
            self._end.wait(max(SAMPLE_SECONDS, took / SAMPLE_SHARE) if tracked else 0.02)

    def _sample(self) -> bool:
        if not self._held:
            self.used_bytes = 0
            return False
        resident, now = resident_by_session(), time.monotonic()
        largest = {session: largest_resident(session) for session in tuple(self._held)}
        with self._lock:
            for session, held in self._held.items():
                # A session without memory has ended, or is about to: that does not count as a drop.
                if resident.get(session, 0):
                    held = held.at_least(largest.get(session, 0))
                    self._held[session] = held.seen(resident[session], now)
            self.used_bytes = sum(resident.get(session, 0) for session in self._held)
        self.peak_bytes = max(self.peak_bytes, self.used_bytes)
        return True


def own_resident() -> int:
    """Return the bytes of memory that this process holds."""
    return session_and_resident(_read("/proc/self/stat"))[1]


def largest_resident(pid: int, proc: Path = Path("/proc")) -> int:
    """Return the most bytes that a process held since its program began (VmHWM of proc(5)); 0 if it has ended."""
    try:
        status = _read(f"{proc}/{pid}/status")
    except OSError:
        return 0
    found = re.search(rb"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_by_session(proc: Path = Path("/proc")) -> dict[int, int]:
    """Return the bytes of memory that each session's processes hold.

    One pass over all processes serves every compile: walking the tree of each would read them all each time.
    """
    held: dict[int, int] = {}
    for name in os.listdir(proc):  # noqa: PTH208 - a Path for each process doubles the cost
        if name.isdecimal():
            try:
                session, resident = session_and_resident(_read(f"{proc}/{name}/stat"))
            except (OSError, ValueError, IndexError):
                continue  # It has ended.
            held[session] = held.get(session, 0) + resident
    return held


def session_and_resident(stat: bytes) -> tuple[int, int]:
    """Read session and resident bytes from the text of /proc/PID/stat (fields 6 and 24 of proc(5))."""
    # The second field is the program's name in parentheses, and may hold anything.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return int(fields[3]), int(fields[21]) * _PAGE


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
