"""Decides which compile starts when. Pure: no threads, no clock, no processes.

One scheduler owns the memory of a build, whatever number of graphs it is given. A job reserves its predicted peak
before it starts, less when it was seen to be past its peak (``reservation``), and nothing when it has ended. The job
that the most work waits for comes first: its own time and that of what follows it (Graham, "Bounds on Multiprocessing
Timing Anomalies", 1969: longest first is at most 4/3 of the best schedule for equal machines). One that does not fit
lets shorter ones pass, but only so many of them, so that it is not kept waiting for ever. Jobs that need more than half
of the budget come before all others of their rank. Those of higher ranks, which begin a unit, start in the order in
which the whole build ends earliest (``packing``), where the caller has that planned.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile
from math import inf

from attnforge.model.cost import Prediction
from attnforge.schedule.kills import Kills
from attnforge.schedule.packing import planned_starts
from attnforge.schedule.reservation import Reservation

# How many jobs may pass one that waits for memory, for each slot. Few enough that the longest job, which ends the
# build, is not late; enough that slots are not idle while the jobs before it end.
PASSES_PER_SLOT = 2


@dataclass(frozen=True, slots=True)
class Job:
    """One job: ``seconds`` and ``peak_bytes`` predicted, ``needs`` the ids of jobs that must be done before.

    ``tail`` is the time, in seconds, of the longest chain of jobs that waits for this one. Jobs of a higher ``rank``
    start only where none of a lower one may. One below 0 is urgent: slots may be kept for it, and nothing passes it
    where it waits for memory. ``late_bytes`` is the most that it holds after its memory has dropped, None if that is
    not known or it never does. ``mean_bytes`` is what all jobs of a unit reserve on average, of the one that begins it.
    ``kind`` is what jobs have in common whose predictions are wrong together. ``first_bytes`` is the peak that was
    predicted before any revision, 0 for ``peak_bytes``.
    """

    id: str
    seconds: float
    peak_bytes: int
    needs: frozenset[str] = frozenset()
    tail: float = 0.0
    rank: int = 0
    late_bytes: int | None = None
    mean_bytes: int = 0
    kind: str = ""
    first_bytes: int = 0

    @property
    def guess_bytes(self) -> int:
        """The peak that was predicted first."""
        return self.first_bytes or self.peak_bytes


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
        self._reserved: dict[str, Reservation] = {}
        self._unfinished: set[str] = set()
        self._passed: dict[str, int] = {}
        self._planned: dict[str, float] = {}
        self._kills = Kills(slots, budget_bytes)
        self.kept_slots = 0
        """Slots that only urgent jobs may take; one is always left to the others."""
        self.other_bytes = 0
        """What others hold of the budget: no job starts that would not fit beside it."""

    @property
    def reserved_bytes(self) -> int:
        """Bytes that are reserved for the running jobs."""
        return sum(reservation.bytes for reservation in self._reserved.values())

    @property
    def running(self) -> tuple[Job, ...]:
        """Jobs that were started and have not ended."""
        return tuple(self._running.values())

    @property
    def waiting(self) -> tuple[Job, ...]:
        """Jobs that have not started, in the order in which they are to start."""
        return tuple(self._waiting)

    def reserved(self, job_id: str) -> int:
        """Return what is reserved for a running job, in bytes."""
        return self._reserved[job_id].bytes

    def most_reserved(self, job_id: str) -> int:
        """Return the most that was reserved for a running job so far, in bytes."""
        return self._reserved[job_id].most

    def add(self, jobs: Iterable[Job]) -> None:
        """Take more jobs, also while others run. A need that is not a job here counts as done."""
        for job in jobs:
            if job.id in self._unfinished:
                raise ValueError(f"job {job.id!r} is here already")
            self._unfinished.add(job.id)
            self._waiting.append(job)
        self._order()

    def hold(self, name: str) -> None:
        """Let jobs that need ``name`` wait, though it is not a job, until it is released."""
        self._unfinished.add(name)

    def release(self, name: str) -> None:
        """Say that what was held is there."""
        self._unfinished.discard(name)

    def ready(self) -> list[Job]:
        """Return the jobs to start now. They count as running from here on."""
        started = []
        short_of_memory = False
        for job in tuple(self._waiting):
            if len(self._running) >= self._open_to(job):
                break
            # While a unit that was begun waits for memory no further one is begun: it would only wait, too.
            if not job.needs.isdisjoint(self._unfinished) or (short_of_memory and job.mean_bytes):
                continue
            if self._fits(job):
                self._start(job)
                started.append(job)
            elif job.rank < 0 or self._passed.get(job.id, 0) >= PASSES_PER_SLOT * self.slots:
                break
            else:
                short_of_memory = True
        if self._waiting and not self._running:
            raise Stuck(", ".join(job.id for job in self._waiting))
        return started

    def _open_to(self, job: Job) -> int:
        """Return how many slots a job may be started in."""
        most = self._kills.open_slots
        return most if job.rank < 0 else max(min(most, self.slots - self.kept_slots), 1)

    def finished(self, job_id: str) -> None:
        """Say that a running job has ended: its memory is free and what needs it may start."""
        seen = self._reserved[job_id].seen
        job = self._end(job_id)
        self._unfinished.discard(job_id)
        self._kills.ended(job_id, job.kind, job.guess_bytes, seen)
        self._kills.left(left.kind for left in (*self._running.values(), *self._waiting))

    def killed(self, job_id: str) -> int:
        """Say that a running job was killed for memory. Return the bytes to ``retry`` it with, 0 where that is useless.

        Jobs of its kind reserve more from here on, and fewer run at once for a while (``kills``).
        """
        job, most = self._running[job_id], self.most_reserved(job_id)
        wanted = self._kills.killed(job_id, job.kind, job.guess_bytes, most, len(self._running))
        for other in self._running.values():
            self._reserved[other.id] = self._reserved[other.id].raised(self._reservation(other).peak)
        return wanted

    def retry(self, job_id: str, peak_bytes: int) -> None:
        """Put a running job back, to start again with another reservation, which it keeps to its end."""
        job = self._end(job_id)
        self._waiting.append(replace(job, peak_bytes=peak_bytes, late_bytes=None, first_bytes=job.guess_bytes))
        self._order()

    def revise(self, predictions: Mapping[str, Prediction], tails: Mapping[str, float] | None = None) -> None:
        """Predict jobs that have not started again, by id, and what waits for them: others like them were measured."""
        after = tails or {}
        if not predictions and not after:
            return
        self._waiting = [_predicted(job, predictions.get(job.id), after.get(job.id)) for job in self._waiting]
        self._order()

    def observed(self, job_id: str, held_bytes: int, peak_bytes: int) -> None:
        """Say what a running job holds now, and the most that it held so far; what is reserved for it follows."""
        if job_id in self._reserved:
            self._reserved[job_id] = self._reserved[job_id].observed(held_bytes, peak_bytes)

    def cancel(self, job_ids: Collection[str] | None = None) -> tuple[str, ...]:
        """Drop jobs that have not started (all, or those named); return their ids."""
        chosen = {job.id for job in self._waiting} if job_ids is None else set(job_ids)
        dropped = [job.id for job in self._waiting if job.id in chosen]
        self._waiting = [job for job in self._waiting if job.id not in chosen]
        self._unfinished.difference_update(dropped)
        return tuple(dropped)

    def replan(self, left: Mapping[str, float]) -> None:
        """Plan again when units start. ``left`` has the seconds that running jobs and what waits for them still take.

        Without it jobs start in the order of the last plan, and those that came since longest first.
        """
        first = [job for job in self._waiting if job.rank > 0]
        work = [job.seconds + job.tail for job in first]
        starts = planned_starts(work, self._at_once(first), list(left.values()))
        self._planned = {job.id: start for job, start in zip(first, starts, strict=True)}
        self._order()

    def _at_once(self, jobs: Iterable[Job]) -> int:
        """Return how many slots the memory is enough for, by what units reserve on average."""
        held = sorted((job.mean_bytes or job.peak_bytes for job in jobs), reverse=True)
        fitting = takewhile(lambda total: total <= self.budget_bytes, accumulate(held[: self.slots]))
        return self.slots if len(held) < self.slots else max(sum(1 for _ in fitting), 1)

    def _order(self) -> None:
        # Jobs of which no two fit at once go first, so that small ones run beside them.
        # The sort is stable: jobs that are alike keep upstream's order.
        self._waiting.sort(
            key=lambda job: (
                job.rank,
                2 * job.peak_bytes <= self.budget_bytes,
                self._planned.get(job.id, inf) if job.rank > 0 else 0.0,
                -job.seconds - job.tail,
            )
        )

    def _reservation(self, job: Job) -> Reservation:
        # A job that is predicted to need more than there is still runs, with nothing beside it.
        peak = self._kills.corrected(job.kind, job.guess_bytes, job.peak_bytes)
        return Reservation.of(peak, job.late_bytes if peak == job.peak_bytes else None, self.budget_bytes)

    def _fits(self, job: Job) -> bool:
        needed = self.other_bytes + self.reserved_bytes + self._reservation(job).bytes
        return needed <= self.budget_bytes or not self._running

    def _start(self, job: Job) -> None:
        position = self._waiting.index(job)
        for earlier in self._waiting[:position]:
            if earlier.needs.isdisjoint(self._unfinished):
                self._passed[earlier.id] = self._passed.get(earlier.id, 0) + 1
        del self._waiting[position]
        self._passed.pop(job.id, None)
        self._kills.started(job.id, self._running)
        self._running[job.id] = job
        self._reserved[job.id] = self._reservation(job)

    def _end(self, job_id: str) -> Job:
        del self._reserved[job_id]
        return self._running.pop(job_id)


def _predicted(job: Job, prediction: Prediction | None, tail: float | None) -> Job:
    if prediction is not None:
        job = replace(
            job,
            seconds=prediction.seconds,
            peak_bytes=prediction.peak_bytes,
            first_bytes=job.guess_bytes,
            late_bytes=prediction.late_bytes,
        )
    return job if tail is None else replace(job, tail=tail)
