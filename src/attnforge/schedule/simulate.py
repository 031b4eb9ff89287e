"""Simulates the scheduler: how long jobs will take, and how much memory they will reserve and hold meanwhile.

An estimate is what the real scheduler makes of the predictions, so it knows what it knows: slots, memory, steps that
wait for one another, and reservations that are released. A run of 300 units takes a fraction of a second.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

from attnforge.model.cost import Prediction
from attnforge.schedule.scheduler import Job, Scheduler


@dataclass(frozen=True, slots=True)
class Trial:
    """A job, and what it will really ``take``. ``opens`` are the jobs that are known when it has ended."""

    job: Job
    take: Prediction
    opens: tuple[Trial, ...] = ()


@dataclass(frozen=True, slots=True)
class Moment:
    """How many jobs ran from a ``clock`` (seconds from the start) on, and how many waited."""

    clock: float
    running: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Simulated:
    """How it went: ``seconds`` to the end, the most bytes that were ``reserved`` and really ``held``.

    ``last_begun`` is the clock when the last unit was begun.
    """

    seconds: float
    reserved_bytes: int
    held_bytes: int
    last_begun: float = 0.0
    moments: tuple[Moment, ...] = ()

    @property
    def last_start(self) -> float:
        """The clock when the last job started."""
        waited = [moment.clock for moment in self.moments if moment.waiting]
        return next((moment.clock for moment in self.moments if not waited or moment.clock >= waited[-1]), 0.0)

    @property
    def at_once(self) -> int:
        """How many jobs ran at once, on average until the last one started; 1 at least."""
        until = self.last_start
        most = max((moment.running for moment in self.moments), default=0)
        return max(round(self.busy(1, until)), 1) if until else max(most, 1)

    def busy(self, slots: int, until: float) -> float:
        """Return the part (0 to 1) of the slots' time that was used until a clock."""
        ends = [moment.clock for moment in self.moments[1:]] + [self.seconds]
        used = sum(
            moment.running * max(min(end, until) - moment.clock, 0.0)
            for moment, end in zip(self.moments, ends, strict=True)
        )
        return used / (slots * until) if until else 1.0


def simulate(trials: Iterable[Trial], slots: int, budget_bytes: int, other_bytes: int = 0) -> Simulated:
    """Run jobs to their end. A job whose need is never there counts as one that needs nothing."""
    run = _Run(Scheduler(slots, budget_bytes))
    run.scheduler.other_bytes = other_bytes
    run.add(trials)
    return run.to_end()


_DROP, _END = 0, 1

# How often a simulation plans, about.
_PLANS = 50

# A job that takes longer than predicted is expected to take this share of its time so far in addition: nothing is known
# of it, and "no time left" would be wrong.
OVERDUE_SHARE = 0.1


@dataclass(slots=True)
class _Run:
    scheduler: Scheduler
    clock: float = 0.0
    every: float = 0.0
    next_plan: float = 0.0
    reserved: int = 0
    held: int = 0
    last_begun: float = 0.0
    trials: dict[str, Trial] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)
    events: list[tuple[float, int, int, str]] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    order: itertools.count[int] = field(default_factory=itertools.count)

    def add(self, trials: Iterable[Trial]) -> None:
        added = list(trials)
        self.trials.update({one.job.id: one for one in added})
        self.scheduler.add(one.job for one in added)

    def to_end(self) -> Simulated:
        work = sum(job.seconds + job.tail for job in self.scheduler.waiting)
        self._replan(work / self.scheduler.slots / _PLANS)
        self._start()
        while self.events:
            self.clock, _, what, job_id = heapq.heappop(self.events)
            self.held = max(self.held, self._held())
            if what == _DROP:
                take = self.trials[job_id].take
                self.scheduler.observed(job_id, take.peak_bytes, take.peak_bytes)
                self.scheduler.observed(job_id, take.late_bytes or 0, take.peak_bytes)
            else:
                del self.started[job_id]
                self.scheduler.finished(job_id)
                self.add(self.trials[job_id].opens)
                if self.clock >= self.next_plan:
                    self._replan(self.every)
            self._start()
        return Simulated(self.clock, self.reserved, self.held, self.last_begun, tuple(self.moments))

    def _start(self) -> None:
        if self.scheduler.waiting or self.scheduler.running:
            for job in self.scheduler.ready():
                take = self.trials[job.id].take
                self.started[job.id] = self.clock
                self.last_begun = self.clock if job.rank > 0 else self.last_begun
                if take.late_bytes is not None:
                    self._at(take.early * take.seconds, _DROP, job.id)
                self._at(take.seconds, _END, job.id)
        self.reserved = max(self.reserved, self.scheduler.reserved_bytes)
        self.moments.append(Moment(self.clock, len(self.started), len(self.scheduler.waiting)))

    def _replan(self, every: float) -> None:
        """Plan as the engine does, which has the clock too; less often, since that is most of a simulation's time."""
        self.every, self.next_plan = every, self.clock + every
        self.scheduler.replan({job.id: self._left(job) for job in self.scheduler.running})

    def _left(self, job: Job) -> float:
        passed = self.clock - self.started[job.id]
        return max(job.seconds - passed, OVERDUE_SHARE * passed) + job.tail

    def _at(self, seconds: float, what: int, job_id: str) -> None:
        heapq.heappush(self.events, (self.clock + seconds, next(self.order), what, job_id))

    def _held(self) -> int:
        return sum(held_after(self.trials[job_id].take, self.clock - began) for job_id, began in self.started.items())


def held_after(take: Prediction, seconds: float) -> int:
    """Return what a job holds so long after its start: it rises evenly to its peak, where it drops, if it ever does."""
    early = take.early * take.seconds
    if take.late_bytes is None or seconds <= early:
        return int(take.peak_bytes * min(seconds / early, 1.0)) if early > 0 else take.peak_bytes
    return take.late_bytes
