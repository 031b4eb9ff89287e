"""Kills for memory correct all jobs of a kind, and a build under a hard limit finishes."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.model.cost import Prediction
from attnforge.schedule.kills import Kills
from attnforge.schedule.scheduler import Job, Scheduler

MB, GIB = 10**6, 2**30


@dataclass
class Machine:
    """Runs a scheduler under a hard limit, step by step. Memory rises evenly to a job's real peak.

    Where jobs hold more than the limit together, the kernel kills the largest. ``waves`` are the steps with a kill.
    """

    limit: int
    real: dict[str, int]
    steps: int = 10
    clock: int = 0
    kills: list[str] = field(default_factory=list)
    waves: set[int] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)
    began: dict[str, int] = field(default_factory=dict)
    at_once: list[int] = field(default_factory=list)

    def held(self, job_id: str) -> int:
        return self.real[job_id] * min(self.clock - self.began[job_id], self.steps) // self.steps

    def run(self, scheduler: Scheduler) -> None:
        while scheduler.waiting or scheduler.running:
            self.began.update({job.id: self.clock for job in scheduler.ready()})
            self.at_once.append(len(scheduler.running))
            self.clock += 1
            self.kill(scheduler)
            for job in scheduler.running:
                scheduler.observed(job.id, self.held(job.id), self.held(job.id))
                if self.clock - self.began[job.id] > self.steps:
                    scheduler.finished(job.id)
            assert self.clock < 100_000

    def kill(self, scheduler: Scheduler) -> None:
        while sum(self.held(job.id) for job in scheduler.running) > self.limit:
            victim = max((job.id for job in scheduler.running), key=self.held)
            self.kills.append(victim)
            self.waves.add(self.clock)
            again = scheduler.killed(victim)
            if again:
                scheduler.retry(victim, again)
            else:
                self.failed.append(victim)
                scheduler.finished(victim)


def jobs(count: int, predicted: int, kind: str = "kernels") -> list[Job]:
    return [Job(f"{kind} {number}", 10.0, predicted, kind=kind) for number in range(count)]


def test_wrong_predictions_under_a_hard_limit_cost_one_wave_of_kills() -> None:
    # Issue 17, M1: 3 GB, 8 slots, real peaks of 1.2 GB predicted as 300 MB.
    units = jobs(24, 300 * MB)
    machine = Machine(3 * GIB, {job.id: 1200 * MB for job in units})
    scheduler = Scheduler(8, 2 * GIB)
    scheduler.add(units)
    machine.run(scheduler)
    assert machine.failed == []
    assert max(machine.waves) <= machine.steps, "a kill after the first jobs"
    assert len(machine.kills) == len(set(machine.kills)) <= 6
    # With correct predictions one runs at a time: 1.2 GB twice is more than the budget.
    assert machine.clock <= 1.3 * 24 * (machine.steps + 1)


@given(
    peaks=st.lists(st.integers(1, 140), min_size=1, max_size=30),
    predicted=st.integers(1, 100),
    slots=st.integers(1, 16),
    budget=st.integers(20, 200),
)
def test_whatever_is_predicted_what_fits_alone_is_done(
    peaks: list[int], predicted: int, slots: int, budget: int
) -> None:
    units = jobs(len(peaks), predicted)
    real = {job.id: peak for job, peak in zip(units, peaks, strict=True)}
    machine, scheduler = Machine(100, real), Scheduler(slots, budget)
    scheduler.add(units)
    machine.run(scheduler)
    # Only what exceeds the limit on its own fails; nothing is tried more than three times.
    assert sorted(machine.failed) == sorted(job_id for job_id, peak in real.items() if peak > 100)
    assert max(map(machine.kills.count, machine.kills), default=0) <= 3


def test_a_kill_corrects_those_that_wait_and_those_that_run() -> None:
    scheduler = Scheduler(2, 1000)
    scheduler.add([*jobs(3, 100), *jobs(1, 100, "others")])
    assert [job.id for job in scheduler.ready()] == ["kernels 0", "kernels 1"]
    scheduler.observed("kernels 0", 150, 150)
    again = scheduler.killed("kernels 0")
    scheduler.retry("kernels 0", again)
    assert again == 2 * 157
    assert scheduler.reserved("kernels 1") == 314
    scheduler.finished("kernels 1")
    for job in scheduler.ready():
        assert scheduler.reserved(job.id) == (100 if job.kind == "others" else 314)


def test_what_is_measured_replaces_the_guess_also_for_predictions_that_were_revised() -> None:
    scheduler = Scheduler(1, 10_000)
    scheduler.add(jobs(4, 100))
    scheduler.ready()
    scheduler.retry("kernels 0", scheduler.killed("kernels 0"))
    (job,) = scheduler.ready()
    scheduler.observed(job.id, 150, 150)
    scheduler.finished(job.id)
    scheduler.revise({"kernels 2": Prediction(10.0, 153)})
    scheduler.add([Job("later", 99.0, 153, kind="kernels")])
    reserved = []
    while scheduler.waiting:
        (job,) = scheduler.ready()
        reserved.append(scheduler.reserved(job.id))
        scheduler.finished(job.id)
    # The one that was killed keeps what it was given.
    assert reserved == [153, 153, 153, 200]


def test_fewer_run_at_once_until_the_kind_is_known() -> None:
    kills = Kills(8, 1000)
    for number in range(8):
        kills.started(str(number), map(str, range(number)))
    assert [kills.killed(str(number), "a", 10, 10, 8 - number) for number in range(3)] == [20, 20, 20]
    assert kills.open_slots == 4, "kills of one wave count once"
    kills.ended("3", "b", 10, 15)
    assert kills.open_slots == 4
    kills.ended("4", "a", 10, 15)
    assert kills.open_slots == 5
    kills.left(["a", "b"])
    assert kills.open_slots == 5
    kills.left(["b"])
    assert kills.open_slots == 8


@pytest.mark.parametrize(("company", "tries"), [(False, [20, 0]), (True, [20, 1000, 0])])
def test_a_job_is_given_up_when_it_was_killed_alone(company: bool, tries: list[int]) -> None:
    kills, seen = Kills(2, 1000), []
    for again in tries:
        kills.started("a", ["b"] if company and again else [])
        seen.append(kills.killed("a", "", 10, 10, 2))
    assert seen == tries
    kills.ended("a", "", 10, 1)
    assert kills.corrected("", 10, 10) == 20, "what was killed at last is no measurement"
