"""Runs compilers: each in its own session, measured while it runs, and never left behind."""

from __future__ import annotations

import os
import resource
import select
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from attnforge.compile.run.held import Held
from attnforge.compile.run.sampler import SAMPLE_SECONDS, Sampler, largest_resident
from attnforge.process import kill_group
from attnforge.process.guard import guard

# A program that ends before it was sampled is measured by the thread that waits for it: first after so many seconds,
# then each time after half as long again, until samples see it.
FIRST_LOOK_SECONDS = 0.002

# Where memory is short, the kernel ends compilers first, which are tried again: not attnforge, nor the user's shell.
# oom_score_adj (proc(5)) is inherited, and anyone may raise it.
_FIRST_VICTIM = "{ echo 1000 > /proc/self/oom_score_adj; } 2>/dev/null"


@dataclass(frozen=True, slots=True)
class Run:
    """A program to run to its end; what it prints goes to the file ``log``."""

    argv: tuple[str, ...]
    cwd: str
    environment: Mapping[str, str]
    log: Path


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended. A negative ``code`` is the signal. ``stopped`` says that we ended it.

    ``cpu_seconds`` is user and system time of all its processes, ``peak_bytes`` the most memory that they held
    together, as far as samples saw it, and at least what the largest of them held. ``late_bytes`` is the most that they
    held after memory had dropped to less than half of the peak so far (the peak, where it never did), ``early_share``
    (0 to 1) the part of their time until then.
    """

    code: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    stopped: bool
    late_bytes: int = 0
    early_share: float = 1.0


class Executor:
    """Runs programs, from any number of threads. ``folders`` are removed when it is closed, or when we are killed."""

    def __init__(self, folders: Iterable[Path] = (), sampled: Callable[[], object] = int) -> None:
        """Start the sampler, which calls ``sampled`` after each sample, in its own thread."""
        self._folders = tuple(folders)
        for folder in self._folders:
            guard().remove_later(folder)
        self._lock = threading.Lock()
        self._groups: set[int] = set()
        self._stopped = False
        self._sampler = Sampler(sampled)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def memory(self) -> Sampler:
        """What the running programs hold."""
        return self._sampler

    def run(self, run: Run, started: Callable[[int], object] = int) -> Ended:
        """Run a program to its end; ``started`` gets its session, for ``memory``.

        OSError where its folder is missing; a missing program is code 127, as in a shell.
        """
        began = time.monotonic()
        process = self._start(run)
        if process is None:
            return Ended(code=-9, seconds=0.0, cpu_seconds=0.0, peak_bytes=0, stopped=True)
        started(process.pid)
        self._watch_first(process.pid)
        # Waits without taking the zombie away: until it is forgotten here, its number can't become another's.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        seconds = time.monotonic() - began
        held = self._forget(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        peak = max(held.peak, own_peak(usage))
        return Ended(
            code=process.returncode,
            seconds=seconds,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            peak_bytes=peak,
            stopped=self._stopped,
            late_bytes=held.late if held.dropped else peak,
            early_share=held.early_share(seconds),
        )

    def _watch_first(self, session: int) -> None:
        """Measure a program's memory until it is two samples old or has ended."""
        try:
            process = os.pidfd_open(session)
        except OSError:
            return  # An older kernel: there are only samples.
        try:
            ended = select.poll()
            ended.register(process, select.POLLIN)
            passed, pause = 0.0, FIRST_LOOK_SECONDS
            while passed < 2 * SAMPLE_SECONDS and not ended.poll(pause * 1000):
                self._sampler.look(session, largest_resident(session))
                passed, pause = passed + pause, pause * 1.5
        finally:
            os.close(process)

    def stop(self) -> None:
        """Kill all that runs, at once, and start nothing more."""
        with self._lock:
            self._stopped = True
            for group in self._groups:
                kill_group(group)

    def close(self) -> None:
        """Stop, and remove the folders."""
        self.stop()
        self._sampler.close()
        for folder in self._folders:
            guard().remove(folder)

    def _start(self, run: Run) -> subprocess.Popen[bytes] | None:
        # Under the lock: what starts is either seen by stop() or does not start.
        with self._lock, run.log.open("wb") as log:
            if self._stopped:
                return None
            process = guard().start(run.argv, _FIRST_VICTIM, cwd=run.cwd, env=dict(run.environment), stderr=log)
            self._groups.add(process.pid)
        self._sampler.track(process.pid)
        return process

    def _forget(self, group: int) -> Held:
        with self._lock:
            # What it may have left running in the background.
            kill_group(group)
            self._groups.discard(group)
            guard().ended(group)
        return self._sampler.forget(group)


def own_peak(usage: resource.struct_rusage) -> int:
    """Return the bytes that the largest process of a program held, 0 where the kernel can't say.

    ru_maxrss (KiB, getrusage(2)) includes what the process held that started it: execve keeps it. So it counts only
    where it is more than we ever held. Smaller programs are known by samples.
    """
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage.ru_maxrss * 1024 if usage.ru_maxrss > ours else 0
