"""Decides which compile starts when. Pure: no threads, no clock, no processes.

One scheduler owns the memory of a build, whatever number of graphs it is given. A job reserves its predicted peak
before it starts and gives it back when it ends. The job that the most work waits for comes first: its own time and that
of what follows it (Graham, "Bounds on Multiprocessing Timing Anomalies", 1969: longest first is at most 4/3 of the
best schedule for equal machines). One that does not fit lets shorter ones pass, but only so many of them, so that it
is not kept waiting for ever. Jobs that need more than half of the budget come before all others of their rank.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

# How many jobs may pass one that waits for memory, for each slot. Few enough that the longest job, which ends the
# build, is not late; enough that slots don't lie idle while the jobs before it end.
PASSES_PER_SLOT = 2


@dataclass(frozen=True, slots=True)
class Job:
    """One job: ``seconds`` and ``peak_bytes`` predicted, ``needs`` the ids of jobs that must be done before.

    ``tail`` is the time, in seconds, of the longest chain of jobs that waits for this one. Jobs of a higher ``rank``
    start only where none of a lower one may. One below 0 is urgent: it does not wait for a slot while no more than one
    job has none, and nothing passes it where it waits for memory.
    """

    id: str
    seconds: float
    peak_bytes: int
    needs: frozenset[str] = frozenset()
    tail: float = 0.0
    rank: int = 0


class Stuck(Exception):  # noqa: N818 - a state of the scheduler
    """Jobs are left, none runs and none may start: they wait for one another."""


class Scheduler:
    """The state of all jobs. The caller starts what ``ready`` returns and says when it has ended."""

    def __init__(self, slots: int, budget_bytes: int) -> None:
        """Run at most ``slots`` jobs at once, whose reservations are at most ``budget_bytes`` together."""
        if slots < 1 or budget_bytes < 1:
            raise ValueError(f"{slots} slots and {budget_bytes} bytes can run nothing")
        self.slots = slots
        self.budget_bytes = budget_bytes
        self._waiting: list[Job] = []
        self._running: dict[str, Job] = {}
        self._reserved: dict[str, int] = {}
        self._unfinished: set[str] = set()
        self._passed: dict[str, int] = {}

    @property
    def reserved_bytes(self) -> int:
        """Bytes that the running jobs hold."""
        return sum(self._reserved.values())

    @property
    def running(self) -> tuple[Job, ...]:
        """Jobs that were started and have not ended."""
        return tuple(self._running.values())

    @property
    def waiting(self) -> tuple[Job, ...]:
        """Jobs that have not started, in the order in which they are to start."""
        return tuple(self._waiting)

    def reserved(self, job_id: str) -> int:
        """Return what a running job holds, in bytes."""
        return self._reserved[job_id]

    def add(self, jobs: Iterable[Job]) -> None:
        """Take more jobs, also while others run. A need that is no job here counts as done."""
        for job in jobs:
            if job.id in self._unfinished:
                raise ValueError(f"job {job.id!r} is here already")
            self._unfinished.add(job.id)
            self._waiting.append(job)
        self._order()

    def hold(self, name: str) -> None:
        """Let jobs that need ``name`` wait, though it is no job, until it is released."""
        self._unfinished.add(name)

    def release(self, name: str) -> None:
        """Say that what was held is there."""
        self._unfinished.discard(name)

    def ready(self) -> list[Job]:
        """Return the jobs to start now. They count as running from here on."""
        started = []
        for job in tuple(self._waiting):
            if len(self._running) >= self.slots + (job.rank < 0):
                break
            if not job.needs.isdisjoint(self._unfinished):
                continue
            if self._fits(job):
                self._start(job)
                started.append(job)
            elif job.rank < 0 or self._passed.get(job.id, 0) >= PASSES_PER_SLOT * self.slots:
                break
        if self._waiting and not self._running:
            raise Stuck(", ".join(job.id for job in self._waiting))
        return started

    def finished(self, job_id: str) -> None:
        """Say that a running job has ended: its memory is free and what needs it may start."""
        self._end(job_id)
        self._unfinished.discard(job_id)

    def retry(self, job_id: str, peak_bytes: int) -> None:
        """Put a running job back, to start again with another reservation."""
        job = self._end(job_id)
        self._waiting.append(replace(job, peak_bytes=peak_bytes))
        self._order()

    def revise(self, job_id: str, seconds: float, peak_bytes: int) -> None:
        """Predict a job that has not started anew: one like it was measured."""
        self._waiting = [
            replace(job, seconds=seconds, peak_bytes=peak_bytes) if job.id == job_id else job for job in self._waiting
        ]
        self._order()

    def observed(self, job_id: str, peak_bytes: int) -> None:
        """Say what a running job was seen to hold: more than it reserved is reserved from then on."""
        if job_id in self._reserved:
            self._reserved[job_id] = max(self._reserved[job_id], peak_bytes)

    def cancel(self, job_ids: Collection[str] | None = None) -> tuple[str, ...]:
        """Drop jobs that have not started (all, or those named); return their ids."""
        dropped = [job.id for job in self._waiting if job_ids is None or job.id in job_ids]
        self._waiting = [job for job in self._waiting if job.id not in set(dropped)]
        self._unfinished.difference_update(dropped)
        return tuple(dropped)

    def _order(self) -> None:
        # Jobs of which no two fit at once go first, so that small ones run beside them; left to the end they run alone.
        # The sort is stable: jobs that are alike keep upstream's order.
        self._waiting.sort(key=lambda job: (job.rank, 2 * job.peak_bytes <= self.budget_bytes, -job.seconds - job.tail))

    def _reservation(self, job: Job) -> int:
        # A job that is predicted to need more than there is runs all the same, but alone.
        return max(1, min(job.peak_bytes, self.budget_bytes))

    def _fits(self, job: Job) -> bool:
        return self.reserved_bytes + self._reservation(job) <= self.budget_bytes or not self._running

    def _start(self, job: Job) -> None:
        position = self._waiting.index(job)
        for earlier in self._waiting[:position]:
            if earlier.needs.isdisjoint(self._unfinished):
                self._passed[earlier.id] = self._passed.get(earlier.id, 0) + 1
        del self._waiting[position]
        self._passed.pop(job.id, None)
        self._running[job.id] = job
        self._reserved[job.id] = self._reservation(job)

    def _end(self, job_id: str) -> Job:
        del self._reserved[job_id]
        return self._running.pop(job_id)


def least_seconds(jobs: Iterable[Job], slots: int, budget_bytes: int) -> float:
    """Return the least wall time, in seconds, that the jobs can take: an estimate that good packing comes close to.

    It is the largest of three bounds: the longest job with what follows it, the work spread over the slots, and the
    memory that is held over time spread over the budget.
    """
    longest = work = held = 0.0
    for job in jobs:
        longest = max(longest, job.seconds + job.tail)
        work += job.seconds
        held += job.seconds * min(job.peak_bytes, budget_bytes)
    return max(longest, work / slots, held / budget_bytes)
