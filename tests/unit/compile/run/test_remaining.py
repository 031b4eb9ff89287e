from __future__ import annotations

from pathlib import Path

import pytest

from attnforge.compile.run.remaining import Countdown, first_trial, seconds_left, trials_of
from attnforge.compile.run.revision import revised
from attnforge.compile.run.work import OPEN, WHOLE, Batch, Task, Work, begin, job_of
from attnforge.model.cost import Prediction
from attnforge.model.graph import CompileGraph, Language, Unit
from attnforge.schedule.scheduler import Scheduler
from attnforge.schedule.simulate import simulate
from attnforge.schedule.unit import OPENING

NVCC = ("nvcc", "-gencode", "arch=compute_90,code=sm_90", "-c", "a.cu", "-o", "a.o")
MB, GB = 10**6, 10**9


class Costs:
    """Figures by label, for every unit; ``whole`` is what was measured of units that one command made."""

    def __init__(self, steps: dict[str, Prediction], whole: Prediction | None = None) -> None:
        self.steps, self.whole = steps, whole

    def predict(self, unit: Unit, label: str = "") -> Prediction:
        return self.steps.get(label.split(" ")[0], Prediction(1.0, 100 * MB))

    def measured(self, unit: Unit, label: str = "") -> Prediction | None:
        return self.whole


COSTS = Costs({"cicc": Prediction(200.0, 3600 * MB, 1300 * MB, 0.2), "": Prediction(30.0, 2 * GB)})
GRAPH = CompileGraph(())


def work(number: int, *, steps: bool = True) -> Work:
    unit = Unit(
        f"/b/{number}.o",
        (f"/s/{number}.cu",),
        NVCC,
        "/b",
        Language.CUDA if steps else Language.CXX,
        cost_key=f"key {number}",
        module_id="id" if steps else "",
    )
    batch = Batch(0, GRAPH, GRAPH, (), {}, lambda line: None)
    return begin(unit, batch, Path("/w"), Path("/t"), number)


def opening(number: int) -> Task:
    return Task(work(number), OPEN, OPENING, tail=205.0)


def test_a_unit_that_was_not_begun_takes_all_of_its_steps() -> None:
    assert simulate([first_trial(opening(0), COSTS)], 4, 10 * GB).seconds == pytest.approx(OPENING.seconds + 204)
    whole = Task(work(0, steps=False), WHOLE, COSTS.steps[""])
    assert simulate([first_trial(whole, COSTS)], 4, 10 * GB).seconds == 30


def test_what_runs_takes_what_is_left_of_it() -> None:
    scheduler = Scheduler(2, 20 * GB)
    running = Task(work(0), "cicc sm_90", COSTS.predict(work(0).unit, "cicc sm_90"), tail=10.0)
    waiting = opening(1)
    tasks = {task.id: task for task in (running, waiting)}
    scheduler.add([job_of(running)])
    scheduler.ready()
    scheduler.add([job_of(waiting)])
    running.started = 100.0
    assert seconds_left(scheduler, tasks, 150.0) == {running.id: 160.0}
    found = simulate(trials_of(scheduler, tasks, COSTS, 150.0), 2, 20 * GB)
    assert found.seconds == pytest.approx(OPENING.seconds + 204)
    # One that is overdue takes a little more.
    assert seconds_left(scheduler, tasks, 400.0) == {running.id: 40.0}


def test_a_call_that_was_never_taken_apart_is_known_as_a_whole() -> None:
    costs = Costs(COSTS.steps, whole=Prediction(90.0, 3 * GB))
    found = simulate([first_trial(opening(0), costs)], 4, 10 * GB)
    assert (found.seconds, found.reserved_bytes) == (90.0, 3 * GB)


def test_what_waits_is_predicted_again() -> None:
    step = Task(work(0), "cicc sm_90", Prediction(100.0, 3 * GB))
    killed = Task(work(1), "cicc sm_90", Prediction(100.0, 6 * GB), kills=1)
    same = Task(work(2), "cicc sm_90", COSTS.steps["cicc"])
    unit, known = opening(3), Task(work(4), OPEN, OPENING, tail=206.0)
    predictions, tails = revised([step, killed, same, unit, known], COSTS)
    assert predictions == {step.id: COSTS.steps["cicc"]}
    assert tails == {unit.id: 206.0}


def test_the_time_that_is_left_is_counted_down_between_simulations() -> None:
    clock = 0.0
    countdown = Countdown(2, 10 * GB, lambda: clock)
    assert countdown.is_due and countdown.seconds == 0
    countdown.simulate([first_trial(opening(0), COSTS)], 0)
    began = countdown.seconds
    clock += 50
    assert countdown.seconds == pytest.approx(began - 50)
    clock += 10_000
    assert countdown.seconds == 0
    assert countdown.is_due
