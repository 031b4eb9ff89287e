"""Jobs run in slots, are tried again, given up and dropped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from build_fakes import GB, SECOND, Costs, call, unit, whole, works

from attnforge.compile.run.held import Held
from attnforge.compile.run.queue import Queue
from attnforge.compile.run.work import OPEN, Batch, Task, Work, are_alike
from attnforge.compile.seat.server import FirstError
from attnforge.errors import BuildError
from attnforge.model.cost import Prediction
from attnforge.model.graph import Language, Unit
from attnforge.schedule.unit import OPENING

WAIT_SECONDS = 20.0


class Project:
    """A call for units that a function performs, and the queue for it."""

    def __init__(self, folder: Path, *names: str, slots: int = 2, budget: int = 10 * GB) -> None:
        self.batch = call(*(unit(folder, name) for name in names))
        self.works = works(self.batch, folder)
        self.errors = FirstError()
        self.performed: list[str] = []
        self.act: Callable[[Task], bool] = self.make
        self.queue = Queue(slots, budget, Costs(), self.errors, self._perform)

    def _perform(self, task: Task) -> bool:
        self.performed.append(task.work.unit.name)
        return self.act(task)

    def make(self, task: Task) -> bool:
        self.queue.made(task.work)
        return True

    def begin(self, *tasks: Task) -> None:
        self.queue.begin(self.batch, self.works, tasks or [whole(work) for work in self.works])

    def wait(self) -> Batch:
        with self.queue.changed:
            assert self.queue.changed.wait_for(lambda: not self.queue.tasks, WAIT_SECONDS)
        self.queue.join()
        return self.batch


def test_no_more_jobs_run_at_once_than_there_are_slots(tmp_path: Path) -> None:
    project = Project(tmp_path, *"abcdef")
    running: list[int] = []
    pair = threading.Barrier(2)

    def act(task: Task) -> bool:
        running.append(task.slot)
        pair.wait(WAIT_SECONDS)
        return project.make(task)

    project.act = act
    project.begin()
    assert project.wait().left == 0
    assert sorted(running) == [0, 0, 0, 1, 1, 1]


def test_jobs_wait_for_memory_and_start_when_less_is_reserved(tmp_path: Path) -> None:
    project = Project(tmp_path, *"ab", budget=10 * GB)
    first, second = threading.Event(), threading.Event()

    def act(task: Task) -> bool:
        task.session = 1
        if task.work.unit.name == "a.cc":
            first.set()
            assert second.wait(WAIT_SECONDS)
        second.set()
        return project.make(task)

    project.act = act
    large = replace(SECOND, peak_bytes=8 * GB, late_bytes=GB)
    project.begin(*(whole(work, large) for work in project.works))
    assert first.wait(WAIT_SECONDS)
    assert project.performed == ["a.cc"]
    for held in (Held(now=8 * GB, peak=8 * GB), Held(now=GB, peak=8 * GB)):
        project.queue.observe(lambda session, held=held: held)  # type: ignore[misc]
    assert project.wait().left == 0


def test_nothing_starts_while_others_hold_what_it_needs_and_then_it_does(tmp_path: Path) -> None:
    project = Project(tmp_path, *"abc", slots=2, budget=10 * GB)
    first, second = threading.Event(), threading.Event()

    def act(task: Task) -> bool:
        (second if first.is_set() else first).set()
        assert second.wait(WAIT_SECONDS)
        return project.make(task)

    project.act = act
    project.queue.observe(lambda session: Held(), 9 * GB)
    project.begin(*(whole(work, replace(SECOND, peak_bytes=4 * GB)) for work in project.works))
    assert first.wait(WAIT_SECONDS)
    project.queue.observe(lambda session: Held(), 7 * GB)
    assert len(project.performed) == 1, "one always runs, and no other beside it"
    project.queue.observe(lambda session: Held(), 0)
    assert project.wait().left == 0


def test_a_job_that_was_killed_runs_once_more_with_twice_the_memory(tmp_path: Path) -> None:
    project = Project(tmp_path, "a")
    reserved: list[int] = []

    def act(task: Task) -> bool:
        reserved.append(project.queue.most_reserved(task))
        return project.make(task) if task.kills else not project.queue.killed(task)

    project.act = act
    project.begin()
    assert project.wait().left == 0
    assert reserved == [GB, 2 * GB]


def test_after_an_error_nothing_more_is_started(tmp_path: Path) -> None:
    project = Project(tmp_path, *"abc", slots=1)

    def act(task: Task) -> bool:
        project.errors.keep(BuildError("no"))
        return False

    project.act = act
    project.begin()
    assert project.wait().left == 3
    assert len(project.performed) == 1
    project.queue.extend([whole(project.works[0])])
    assert not project.queue.tasks


def test_closing_lets_what_runs_end_and_starts_nothing_more(tmp_path: Path) -> None:
    project = Project(tmp_path, *"ab", slots=1)
    started, end = threading.Event(), threading.Event()

    def act(task: Task) -> bool:
        started.set()
        assert end.wait(WAIT_SECONDS)
        return project.make(task)

    project.act = act
    project.begin()
    assert started.wait(WAIT_SECONDS)
    project.queue.close()
    end.set()
    assert project.wait().left == 1
    assert project.performed == ["a.cc"]


def test_an_object_is_made_for_one_call_at_a_time(tmp_path: Path) -> None:
    project = Project(tmp_path, "a", slots=1)
    end = threading.Event()
    project.act = lambda task: end.wait(WAIT_SECONDS) and project.make(task)
    project.begin()
    with pytest.raises(BuildError, match="two calls of ninja make"):
        project.begin()
    end.set()
    project.queue.join()


def test_units_that_wait_for_one_another_are_an_error(tmp_path: Path) -> None:
    project = Project(tmp_path, *"ab")
    first, second = (work.unit for work in project.works)
    for work, other in zip(project.works, (second, first), strict=True):
        work.unit = replace(work.unit, needs=(other.output,))
    project.begin()
    assert isinstance(project.errors.error, BuildError)
    assert project.errors.error.why == "a.cc, b.cc"
    assert not project.queue.tasks


def test_a_unit_waits_for_the_object_of_another(tmp_path: Path) -> None:
    project = Project(tmp_path, *"ab")
    project.works[0].unit = replace(project.works[0].unit, needs=(project.works[1].unit.output,))
    project.begin()
    assert project.wait().left == 0
    assert project.performed == ["b.cc", "a.cc"]


def test_a_unit_is_replaced_by_its_fallback(tmp_path: Path) -> None:
    project = Project(tmp_path, "a")
    (failing,) = project.works
    instead = works(call(failing.unit, unit(tmp_path, "b")), tmp_path / "other")
    for number, work in enumerate(instead):
        work.batch, work.number = project.batch, 10 + number

    def act(task: Task) -> bool:
        if task.work is not failing:
            return project.make(task)
        project.queue.replace(failing, instead, [whole(work) for work in instead])
        return True

    project.act = act
    project.begin()
    assert project.wait().left == 0
    assert failing.given_up
    assert sorted(project.performed) == ["a.cc", "a.cc", "b.cc"]


def test_giving_a_call_up_waits_for_what_runs(tmp_path: Path) -> None:
    project = Project(tmp_path, *"ab", slots=1)
    started, ended = threading.Event(), threading.Event()

    def act(task: Task) -> bool:
        started.set()
        while not task.work.given_up:
            time.sleep(0.01)
        ended.set()
        return False

    project.act = act
    project.begin()
    assert started.wait(WAIT_SECONDS)
    project.queue.forget(project.batch)
    assert ended.is_set()
    assert not project.queue.tasks
    project.queue.join()


def test_a_kept_slot_is_for_host_units_until_it_is_released(tmp_path: Path) -> None:
    project = Project(tmp_path, *"abc", slots=3)
    for work in project.works:
        work.unit = replace(work.unit, language=Language.CUDA)
    end = threading.Event()
    project.act = lambda task: end.wait(WAIT_SECONDS) and project.make(task)
    project.queue.keep_slot()
    project.begin()
    assert len(project.queue.scheduler.running) == 2
    project.queue.release_slot()
    assert len(project.queue.scheduler.running) == 3
    end.set()
    project.wait()


def test_what_was_learned_is_predicted_of_what_waits(tmp_path: Path) -> None:
    project = Project(tmp_path, *"abc", slots=1)
    end = threading.Event()
    project.act = lambda task: end.wait(WAIT_SECONDS) and project.make(task)
    running, waiting, opening = project.works
    opened = Task(opening, OPEN, OPENING, tail=50.0)
    old = replace(SECOND, seconds=99.0)
    project.begin(whole(running, replace(old, seconds=100.0)), whole(waiting, old), opened)
    project.queue.learned(running.unit)
    assert [(job.seconds, job.tail) for job in project.queue.scheduler.waiting if job.id == waiting.job("")] == [(1, 0)]
    assert opened.tail == 50.0
    project.queue.refresh()
    assert opened.tail == 1.0
    end.set()
    project.wait()


def test_what_was_learned_costs_little_where_thousands_wait(tmp_path: Path) -> None:
    asked: list[str] = []

    class Counting(Costs):
        def predict(self, unit: Unit, label: str = "") -> Prediction:
            asked.append(unit.cost_key)
            return SECOND

    end = threading.Event()
    queue = Queue(1, 10 * GB, Counting(), FirstError(), lambda task: end.wait(WAIT_SECONDS))
    others = [unit(tmp_path, f"other{number}", cost_key=f"package 1 {number} nvcc") for number in range(2000)]
    alike = [unit(tmp_path, f"alike{number}", cost_key="package 1 same nvcc") for number in range(2)]
    batch = call(*alike, *others)
    made = works(batch, tmp_path)
    queue.begin(batch, made, [whole(work, replace(SECOND, seconds=99.0)) for work in made])
    queue.learned(alike[0])
    assert asked == ["package 1 same nvcc"]
    assert [job.seconds for job in queue.scheduler.waiting if job.id == made[1].job("")] == [1.0]
    queue.refresh()
    assert len(asked) == 2002
    queue.close()
    end.set()
    queue.join()


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (("p 1 a nvcc", ""), ("p 1 a nvcc", ""), True),
        (("p 1 a nvcc", ""), ("p 1 b nvcc", ""), False),
        (("p 1 forward-hdim64 nvcc", "k"), ("p 1 forward-hdim96 nvcc", "k"), True),
        (("p 1 forward-hdim64 nvcc", "k"), ("p 1 backward-hdim64 nvcc", "k"), False),
        (("p 1 forward-hdim64 nvcc", "k"), ("p 1 forward-hdim96 nvcc", ""), False),
    ],
)
def test_what_units_teach_of_others(tmp_path: Path, one: tuple[str, str], other: tuple[str, str], alike: bool) -> None:
    first, second = (unit(tmp_path, cost_key=key, kernel=kernel) for key, kernel in (one, other))
    assert are_alike(first, second) is alike


def test_a_unit_that_is_changed_is_predicted_again(tmp_path: Path) -> None:
    project = Project(tmp_path, *"ab", slots=1)
    end = threading.Event()
    project.act = lambda task: end.wait(WAIT_SECONDS) and project.make(task)
    changed: Work = project.works[1]
    project.begin(whole(project.works[0], replace(SECOND, seconds=100.0)), whole(changed, replace(SECOND, seconds=9.0)))
    project.queue.change(changed, replace(changed.unit, kernel="other"))
    assert changed.unit.kernel == "other"
    assert [job.seconds for job in project.queue.scheduler.waiting] == [1.0]
    end.set()
    project.wait()
