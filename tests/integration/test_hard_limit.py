"""A build under a hard limit of memory whose predictions are wrong: real processes, and a kernel that kills."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attnforge.compile.reuse.cache.notices import Notices
from attnforge.compile.reuse.objects import ObjectStore
from attnforge.compile.reuse.reuse import Reuse
from attnforge.compile.run.compiler import Compiler
from attnforge.compile.run.cost import CostModel
from attnforge.compile.run.executor import Executor
from attnforge.compile.run.placement import Placement
from attnforge.compile.run.places import Places
from attnforge.compile.run.queue import Queue
from attnforge.compile.run.reporter import Reporter
from attnforge.compile.run.sampler import resident_by_session
from attnforge.compile.run.units import Units
from attnforge.compile.run.work import Batch
from attnforge.compile.seat.server import FirstError
from attnforge.model.cost import Prediction
from attnforge.model.events import Event, JobRetried
from attnforge.model.graph import CompileGraph, Language, Unit

MB = 10**6
PREDICTED, LIMIT, BUDGET, SLOTS, UNITS = 30 * MB, 300 * MB, 260 * MB, 8, 10

# It rises to so many megabytes in half a second and holds them as long.
HOLD = """
import sys, time
held = []
for _ in range(20):
    held.append(b"x" * (int(sys.argv[1]) * 50_000))
    time.sleep(0.025)
time.sleep(0.5)
"""


class Build:
    """A queue of units that hold memory, with real processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[Event] = []
        self.errors = FirstError()
        costs = CostModel(folder / "costs.json", {"held": Prediction(1.0, PREDICTED)})
        reporter, reuse = Reporter(self.events.append, io.StringIO()), Reuse()
        places = Places.make(folder / "plan", folder / "tmp")
        self.queue = Queue(SLOTS, BUDGET, costs, self.errors, lambda task: self.compiler.perform(task))
        self.executor = Executor([places.temporary], lambda: self.queue.observe(self.executor.memory.held))
        self.units = Units(places, costs, reuse.prefixes)
        self.compiler = Compiler(
            places=places,
            executor=self.executor,
            queue=self.queue,
            units=self.units,
            placement=Placement(ObjectStore(folder / "objects"), reuse, self.executor, places.work, reporter),
            reuse=reuse,
            costs=costs,
            reporter=reporter,
            errors=self.errors,
            notices=Notices(self.ignore),
            watch=lambda work, step: None,
        )

    def ignore(self, text: str) -> None:
        """Say nothing."""

    def unit(self, name: str, megabytes: int) -> Unit:
        argv = (sys.executable, "-I", "-S", "-c", HOLD, str(megabytes))
        return Unit(str(self.folder / name), (), argv, str(self.folder), Language.OTHER, cost_key="held")

    def make(self, *units: Unit) -> Batch:
        graph = CompileGraph(units)
        batch = Batch(0, graph, graph, (), {"PATH": "/usr/bin:/bin"}, self.ignore)
        works = [self.units.begin(one, batch) for one in units]
        self.queue.begin(batch, works, [self.units.first_task(work) for work in works])
        with self.queue.changed:
            assert self.queue.changed.wait_for(lambda: not self.queue.tasks, 100)
        self.queue.join()
        return batch

    @contextmanager
    def kernel(self) -> Iterator[list[int]]:
        """Kill the largest process whenever all hold more than the limit together, as the kernel does in a cgroup."""
        killed: list[int] = []
        end = threading.Event()

        def watch() -> None:
            while not end.wait(0.01):
                sessions = {task.session for task in self.queue.tasks if task.session} - set(killed)
                held = {one: size for one, size in resident_by_session().items() if one in sessions}
                if sum(held.values()) > LIMIT:
                    killed.append(max(held, key=lambda one: held[one]))
                    os.kill(killed[-1], signal.SIGKILL)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield killed
        finally:
            end.set()
            thread.join()
            self.executor.close()


def test_a_build_with_wrong_predictions_finishes_after_one_wave_of_kills(tmp_path: Path) -> None:
    build = Build(tmp_path)
    with build.kernel() as killed:
        batch = build.make(*(build.unit(str(number), 120) for number in range(UNITS)))
    assert build.errors.error is None
    assert batch.left == 0
    retried = [event.name for event in build.events if isinstance(event, JobRetried)]
    assert 0 < len(killed) == len(retried) <= SLOTS, "kills after the first wave"


def test_a_unit_that_is_larger_than_all_memory_fails_with_its_numbers(tmp_path: Path) -> None:
    build = Build(tmp_path)
    with build.kernel():
        build.make(build.unit("huge", 400))
    assert build.errors.error is not None
    assert "huge: the compiler was killed twice" in str(build.errors.error)
