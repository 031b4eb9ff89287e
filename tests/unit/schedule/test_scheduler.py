from __future__ import annotations

import heapq
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.model.cost import Prediction
from attnforge.schedule.scheduler import PASSES_PER_SLOT, Job, Scheduler, Stuck


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


@st.composite
def graphs(draw: st.DrawFn) -> list[Job]:
    """Jobs whose needs are earlier jobs: no cycles."""
    count = draw(st.integers(0, 25))
    jobs = []
    for number in range(count):
        needs = draw(st.frozensets(st.integers(0, number - 1).map(str), max_size=2)) if number else frozenset()
        jobs.append(Job(str(number), draw(st.floats(0, 100)), draw(st.integers(0, 150)), needs))
    return jobs


class Simulation:
    """Runs a scheduler against a clock of its own and checks what must hold at every moment."""

    def __init__(self, slots: int, budget: int) -> None:
        self.scheduler = Scheduler(slots, budget)
        self.slots, self.budget = slots, budget
        self.clock = 0.0
        self.order: list[str] = []
        self.done: set[str] = set()
        self._running: list[tuple[float, str]] = []
        self._jobs: dict[str, Job] = {}

    def add(self, jobs: list[Job]) -> None:
        self._jobs.update({job.id: job for job in jobs})
        self.scheduler.add(jobs)

    def step(self) -> bool:
        for job in self.scheduler.ready():
            assert job.needs <= self.done
            self.order.append(job.id)
            heapq.heappush(self._running, (self.clock + job.seconds, job.id))
        assert len(self._running) <= self.slots
        held = sum(self._jobs[job_id].peak_bytes for _, job_id in self._running)
        assert held <= self.budget or len(self._running) == 1
        assert self.scheduler.reserved_bytes <= self.budget
        if not self._running:
            return False
        self.clock, job_id = heapq.heappop(self._running)
        self.scheduler.finished(job_id)
        self.done.add(job_id)
        return True

    def run(self) -> None:
        while self.step():
            pass


@given(graphs(), st.integers(1, 6), st.integers(1, 200))
def test_every_job_runs_once_within_slots_and_budget(jobs: list[Job], slots: int, budget: int) -> None:
    simulation = Simulation(slots, budget)
    simulation.add(jobs)
    simulation.run()
    assert sorted(simulation.order) == sorted(job.id for job in jobs)


@given(graphs(), st.integers(1, 4), st.integers(1, 200), st.integers(0, 25))
def test_jobs_may_be_added_while_others_run(jobs: list[Job], slots: int, budget: int, first: int) -> None:
    simulation = Simulation(slots, budget)
    simulation.add(jobs[:first])
    simulation.step()
    simulation.add(jobs[first:])
    simulation.run()
    assert sorted(simulation.order) == sorted(job.id for job in jobs)


@given(st.lists(st.tuples(st.floats(1, 100), st.integers(1, 50)), min_size=1, max_size=40), st.integers(1, 5))
def test_it_is_near_the_best_where_memory_is_no_limit(costs: list[tuple[float, int]], slots: int) -> None:
    jobs = [Job(str(number), seconds, size) for number, (seconds, size) in enumerate(costs)]
    simulation = Simulation(slots, 10**6)
    simulation.add(jobs)
    simulation.run()
    # No slot lies idle before the last job starts (Graham 1966): it ends at most this long after it could have.
    work, longest = sum(job.seconds for job in jobs), max(job.seconds for job in jobs)
    assert simulation.clock <= (work / slots + (1 - 1 / slots) * longest) * (1 + 1e-9)
    assert simulation.clock >= least_seconds(jobs, slots, 10**6) * (1 - 1e-9)


def test_packing_of_a_real_mix() -> None:
    # FlashAttention 2 on four slots and 16 GB: backward units of 239 s and 6.2 GB, forward of 150 s and 3.8 GB.
    backward = [Job(f"b{number}", 239, 6_200) for number in range(12)]
    forward = [Job(f"f{number}", 150, 3_800) for number in range(24)]
    simulation = Simulation(4, 16_000)
    simulation.add(forward + backward)
    simulation.run()
    assert simulation.clock <= 1.25 * least_seconds(forward + backward, 4, 16_000)


def test_the_longest_starts_first() -> None:
    scheduler = Scheduler(2, 100)
    scheduler.add([Job("short", 1, 1), Job("long", 9, 1), Job("middle", 5, 1)])
    assert [job.id for job in scheduler.ready()] == ["long", "middle"]


def test_what_most_work_waits_for_starts_first() -> None:
    scheduler = Scheduler(1, 100)
    scheduler.add([Job("long", 9, 1), Job("first of a chain", 1, 1, tail=10)])
    assert [job.id for job in scheduler.ready()] == ["first of a chain"]


def test_what_was_begun_goes_before_what_was_not() -> None:
    scheduler = Scheduler(2, 100)
    scheduler.add([Job("new", 9, 1, rank=1), Job("begun", 1, 1)])
    assert [job.id for job in scheduler.ready()] == ["begun", "new"]


def test_a_slot_that_is_kept_is_for_urgent_jobs_alone() -> None:
    scheduler = Scheduler(3, 100)
    scheduler.kept_slots = 1
    scheduler.add([Job("a", 9, 10), Job("b", 9, 10), Job("c", 9, 10)])
    assert [job.id for job in scheduler.ready()] == ["a", "b"]
    scheduler.add([Job("host", 1, 10, rank=-1), Job("other", 1, 10, rank=-1)])
    # Never more than there are slots.
    assert [job.id for job in scheduler.ready()] == ["host"]
    scheduler.finished("a")
    assert [job.id for job in scheduler.ready()] == ["other"]
    scheduler.finished("host")
    assert scheduler.ready() == []
    scheduler.kept_slots = 0
    assert [job.id for job in scheduler.ready()] == ["c"]


def test_the_only_slot_is_not_kept() -> None:
    scheduler = Scheduler(1, 100)
    scheduler.kept_slots = 1
    scheduler.add([Job("a", 9, 10)])
    assert [job.id for job in scheduler.ready()] == ["a"]


def test_nothing_passes_an_urgent_job_that_waits_for_memory() -> None:
    scheduler = Scheduler(4, 100)
    scheduler.add([Job("a", 9, 90)])
    assert [job.id for job in scheduler.ready()] == ["a"]
    scheduler.add([Job("host", 1, 20, rank=-1), Job("small", 9, 5)])
    assert scheduler.ready() == []
    scheduler.finished("a")
    assert [job.id for job in scheduler.ready()] == ["host", "small"]


def test_jobs_of_which_no_two_fit_do_not_wait_for_the_end() -> None:
    scheduler = Scheduler(2, 100)
    scheduler.add([Job("small and long", 9, 40), Job("large and short", 1, 60)])
    assert [job.id for job in scheduler.waiting] == ["large and short", "small and long"]


def test_a_name_that_is_held_keeps_jobs_waiting_until_it_is_released() -> None:
    scheduler = Scheduler(2, 100)
    scheduler.hold("object")
    scheduler.add([Job("link", 1, 1, needs=frozenset({"object"})), Job("other", 1, 1)])
    assert [job.id for job in scheduler.ready()] == ["other"]
    scheduler.release("object")
    assert [job.id for job in scheduler.ready()] == ["link"]


def test_equal_jobs_keep_their_order() -> None:
    scheduler = Scheduler(1, 100)
    scheduler.add([Job("a", 1, 1), Job("b", 1, 1)])
    scheduler.add([Job("c", 1, 1)])
    assert [job.id for job in scheduler.waiting] == ["a", "b", "c"]


def test_a_smaller_job_fills_the_memory_that_is_left() -> None:
    scheduler = Scheduler(3, 100)
    scheduler.add([Job("first", 9, 60), Job("large", 8, 60), Job("small", 1, 40)])
    assert [job.id for job in scheduler.ready()] == ["first", "small"]


def test_a_large_job_is_not_passed_for_ever() -> None:
    slots = 2
    scheduler = Scheduler(slots, 100)
    scheduler.add([Job("blocker", 10, 50)])
    running = [job.id for job in scheduler.ready()]
    scheduler.add([Job("large", 9, 100), *(Job(f"small{number}", 1, 50) for number in range(100))])
    running += [job.id for job in scheduler.ready()]
    assert running == ["blocker", "small0"]
    passed = 1
    while "large" not in running:
        # A long job beside it never leaves the machine empty: only holding back lets the large one in.
        scheduler.finished(running.pop())
        started = [job.id for job in scheduler.ready()]
        passed += len([job_id for job_id in started if job_id != "large"])
        running += started
    assert passed == PASSES_PER_SLOT * slots


def test_a_job_beyond_the_budget_runs_alone() -> None:
    scheduler = Scheduler(4, 100)
    scheduler.add([Job("huge", 9, 1000), Job("tiny", 1, 0)])
    assert [job.id for job in scheduler.ready()] == ["huge"]
    assert (scheduler.reserved("huge"), scheduler.reserved_bytes) == (100, 100)
    scheduler.finished("huge")
    assert [job.id for job in scheduler.ready()] == ["tiny"]


def test_a_retry_reserves_what_it_is_given() -> None:
    scheduler = Scheduler(2, 100)
    scheduler.add([Job("a", 9, 40), Job("b", 1, 40)])
    scheduler.ready()
    scheduler.retry("a", 80)
    assert [job.id for job in scheduler.running] == ["b"]
    assert scheduler.ready() == []
    scheduler.finished("b")
    assert [(job.id, job.peak_bytes) for job in scheduler.ready()] == [("a", 80)]


def test_memory_that_was_seen_counts_more_than_what_was_predicted() -> None:
    scheduler = Scheduler(3, 100)
    scheduler.add([Job("a", 9, 40), Job("b", 8, 40), Job("c", 7, 20)])
    scheduler.observed("a", 70, 70)
    assert scheduler.reserved_bytes == 0
    assert len(scheduler.ready()) == 3
    scheduler.finished("b")
    scheduler.finished("c")
    scheduler.observed("a", 70, 70)
    scheduler.observed("a", 10, 70)
    scheduler.add([Job("d", 1, 40), Job("e", 1, 25)])
    assert [job.id for job in scheduler.ready()] == ["e"]


def test_a_prediction_may_be_revised_while_a_job_waits() -> None:
    scheduler = Scheduler(1, 100)
    scheduler.add([Job("a", 9, 1), Job("b", 8, 1), Job("c", 7, 1)])
    scheduler.ready()
    scheduler.revise({"c": Prediction(10, 50, 20), "a": Prediction(1, 99)})
    scheduler.finished("a")
    assert [job.id for job in scheduler.ready()] == ["c"]
    assert scheduler.reserved_bytes == 50
    scheduler.observed("c", 10, 50)
    assert scheduler.reserved_bytes == 22


def test_what_waits_for_a_job_may_be_revised() -> None:
    scheduler = Scheduler(1, 100)
    scheduler.add([Job("a", 1, 1, tail=5), Job("b", 1, 1, tail=4)])
    scheduler.revise({}, {"b": 9})
    assert [job.id for job in scheduler.waiting] == ["b", "a"]


def test_what_others_hold_is_part_of_the_budget() -> None:
    scheduler = Scheduler(3, 100)
    scheduler.other_bytes = 30
    scheduler.add([Job("a", 9, 50), Job("b", 8, 30), Job("c", 7, 20)])
    assert [job.id for job in scheduler.ready()] == ["a", "c"]


def test_what_a_job_releases_lets_others_start() -> None:
    scheduler = Scheduler(3, 100)
    scheduler.add([Job("a", 9, 80, late_bytes=20), Job("b", 8, 70), Job("c", 7, 10)])
    assert [job.id for job in scheduler.ready()] == ["a", "c"]
    scheduler.observed("a", 79, 79)
    assert scheduler.ready() == []
    scheduler.observed("a", 15, 80)
    assert [scheduler.reserved("a"), *(job.id for job in scheduler.ready())] == [22]
    scheduler.finished("c")
    assert [job.id for job in scheduler.ready()] == ["b"]


def test_cancel_drops_what_has_not_started() -> None:
    scheduler = Scheduler(1, 100)
    scheduler.add([Job("a", 9, 1), Job("b", 8, 1), Job("c", 7, 1, frozenset("b"))])
    scheduler.ready()
    assert scheduler.cancel({"b"}) == ("b",)
    assert scheduler.cancel() == ("c",)
    scheduler.finished("a")
    assert scheduler.ready() == []


def test_a_cycle_is_found() -> None:
    scheduler = Scheduler(2, 100)
    scheduler.add([Job("a", 1, 1, frozenset("b")), Job("b", 1, 1, frozenset("a"))])
    with pytest.raises(Stuck, match="a, b"):
        scheduler.ready()


def test_the_same_job_twice_is_refused() -> None:
    scheduler = Scheduler(2, 100)
    scheduler.add([Job("a", 1, 1)])
    with pytest.raises(ValueError, match="'a'"):
        scheduler.add([Job("a", 1, 1)])


@pytest.mark.parametrize(("slots", "budget"), [(0, 1), (1, 0), (-1, -1)])
def test_a_scheduler_that_can_run_nothing_is_refused(slots: int, budget: int) -> None:
    with pytest.raises(ValueError):
        Scheduler(slots, budget)


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([], 0.0),
        ([Job("a", 10, 1)], 10.0),
        ([Job("a", 10, 1), Job("b", 10, 1), Job("c", 10, 1)], 15.0),
        ([Job("a", 10, 100), Job("b", 10, 100)], 20.0),
        ([Job("a", 10, 500), Job("b", 10, 500)], 20.0),
    ],
)
def test_least_seconds(jobs: list[Job], expected: float) -> None:
    assert least_seconds(jobs, 2, 100) == expected
