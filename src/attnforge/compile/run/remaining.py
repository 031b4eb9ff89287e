"""Predicts how long a build still takes: the rest of it is simulated on the scheduler."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from attnforge.compile.run.forecast import Costs, forecast_steps
from attnforge.compile.run.work import OPEN, Task
from attnforge.model.cost import Prediction
from attnforge.schedule.scheduler import Job, Scheduler
from attnforge.schedule.simulate import OVERDUE_SHARE, Trial, simulate
from attnforge.schedule.unit import steps_of, unit_of

# Part of one CPU that simulations may take. In between the time is counted down.
_SHARE = 0.02


def trials_of(scheduler: Scheduler, tasks: Mapping[str, Task], costs: Costs, now: float) -> list[Trial]:
    """Return what is left of a build. With the build's lock held; ``now`` is a reading of time.monotonic."""
    waiting = [_waiting(job, tasks[job.id], costs) for job in scheduler.waiting]
    return [_running(job, tasks[job.id], scheduler, costs, now) for job in scheduler.running] + waiting


def first_trial(task: Task, costs: Costs) -> Trial:
    """Return a unit whose first job has not run, with all that will follow from it."""
    if task.label != OPEN:
        return unit_of(task.id, {task.label: task.predicted})
    return unit_of(task.id, forecast_steps(task.work.unit, costs))


def _waiting(job: Job, task: Task, costs: Costs) -> Trial:
    return Trial(job, task.predicted, _opens(task, costs))


def _opens(task: Task, costs: Costs) -> tuple[Trial, ...]:
    if task.label != OPEN:
        return ()
    steps = forecast_steps(task.work.unit, costs)
    return steps_of(task.id, steps) if len(steps) > 1 else (unit_of(f"{task.id} whole", steps),)


def _running(job: Job, task: Task, scheduler: Scheduler, costs: Costs, now: float) -> Trial:
    """Return the rest of a running job. It starts before all others, with what it has reserved."""
    passed = now - (task.started or now)
    left = _left(job, task, now)
    early = task.predicted.early * (passed + left) - passed
    reserved = scheduler.reserved(job.id)
    late = job.late_bytes if early > 0 and left > 0 else None
    take = Prediction(left, reserved, late, early / left if late is not None else 1.0)
    rest = replace(job, seconds=left, peak_bytes=reserved, late_bytes=late, needs=frozenset(), rank=-1)
    return Trial(rest, take, _opens(task, costs))


def seconds_left(scheduler: Scheduler, tasks: Mapping[str, Task], now: float) -> dict[str, float]:
    """Return the seconds that each running job, and what waits for it, will still take, by id. With the lock held."""
    return {job.id: _left(job, tasks[job.id], now) + job.tail for job in scheduler.running}


def _left(job: Job, task: Task, now: float) -> float:
    passed = now - (task.started or now)
    return max(job.seconds - passed, OVERDUE_SHARE * passed)


class Countdown:
    """The time that is left. Simulated again only as often as costs little; in between it is counted down."""

    def __init__(self, slots: int, budget_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without an estimate."""
        self._slots = slots
        self._budget = budget_bytes
        self._clock = clock
        self._seconds = 0.0
        self._at = self._next = float("-inf")

    @property
    def is_due(self) -> bool:
        """Whether it is time for another simulation."""
        return self._clock() >= self._next

    def simulate(self, trials: list[Trial], other_bytes: int) -> None:
        """Simulate what is left of the build."""
        began = self._clock()
        self._seconds = simulate(trials, self._slots, self._budget, other_bytes).seconds
        self._at = self._clock()
        self._next = self._at + (self._at - began) / _SHARE

    @property
    def seconds(self) -> float:
        """The wall seconds that are left."""
        return max(self._seconds - (self._clock() - self._at), 0.0) if self._at > float("-inf") else 0.0
