"""Reports once a second how far a build is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from attnforge.compile.run.queue import Queue
from attnforge.compile.run.remaining import Countdown
from attnforge.compile.run.reporter import Reporter
from attnforge.compile.run.sampler import Sampler
from attnforge.model.events import Progress

PROGRESS_SECONDS = 1.0

# Part of the time that predicting all waiting units again may take: no job starts or ends meanwhile.
_SHARE = 0.02


class Ticker:
    """A thread that plans again and reports progress, once a second while there are jobs.

    It has no lock: the countdown is used by its thread only, and the queue's state is read under the queue's lock.
    """

    def __init__(
        self, queue: Queue, reporter: Reporter, memory: Sampler, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare; ``start`` begins."""
        self._queue = queue
        self._reporter = reporter
        self._memory = memory
        self._countdown = Countdown(queue.scheduler.slots, queue.scheduler.budget_bytes)
        self._clock = clock
        self._next_refresh = float("-inf")
        self._finish = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="progress", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._finish.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._finish.wait(PROGRESS_SECONDS):
            self.tick()

    def tick(self) -> None:
        """Plan again where something was learned, and report progress where jobs are left."""
        self._refresh()
        if self._countdown.is_due and (left := self._queue.trials()):
            self._countdown.simulate(left, self._queue.scheduler.other_bytes)
        with self._queue.changed:
            progress = self._progress() if self._queue.tasks else None
        if progress is not None:
            self._reporter.emit(progress)

    def _refresh(self) -> None:
        began = self._clock()
        if began >= self._next_refresh:
            self._queue.refresh()
            ended = self._clock()
            self._next_refresh = ended + (ended - began) / _SHARE

    def _progress(self) -> Progress:
        return Progress(
            done=self._reporter.done,
            total=self._reporter.total,
            used_bytes=self._memory.used_bytes,
            reserved_bytes=self._queue.scheduler.reserved_bytes,
            budget_bytes=self._queue.scheduler.budget_bytes,
            remaining_seconds=self._countdown.seconds,
        )
