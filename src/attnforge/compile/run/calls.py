"""Serves upstream's calls of ninja: from the graph of a call to the objects that it names."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence

from attnforge.compile.reuse import objects
from attnforge.compile.run.forecast import Costs
from attnforge.compile.run.placement import Placement
from attnforge.compile.run.queue import Queue
from attnforge.compile.run.rehearsal import LEAST_SECONDS, Rehearsal, can_wait
from attnforge.compile.run.remaining import first_trial
from attnforge.compile.run.reporter import Reporter
from attnforge.compile.run.units import Units
from attnforge.compile.run.work import Batch, Task, Work, is_host
from attnforge.compile.seat.server import Say
from attnforge.model.events import GraphReceived
from attnforge.model.graph import CompileGraph, GeneratedFile, Pass
from attnforge.schedule.simulate import simulate


class Calls:
    """Serves calls of ninja, several at once. The queue's lock protects the rehearsal and the calls (``Batch``)."""

    def __init__(
        self,
        passes: Sequence[Pass],
        costs: Costs,
        queue: Queue,
        units: Units,
        placement: Placement,
        reporter: Reporter,
    ) -> None:
        """Serve no call yet; there is no rehearsal."""
        self._passes = tuple(passes)
        self._costs = costs
        self._queue = queue
        self._units = units
        self._placement = placement
        self._reporter = reporter
        self._rehearsal = Rehearsal()
        self._numbers = itertools.count()

    # --- a rehearsal

    def rehearse(self) -> None:
        """Answer calls from here on when their host units are there, where enough kernels are left."""
        with self._queue.changed:
            self._rehearsal.on = True

    @property
    def rehearsed(self) -> bool:
        """Whether a call was answered with objects missing."""
        with self._queue.changed:
            return self._rehearsal.took_place

    def perform(self) -> None:
        """Answer calls from here on when all objects are there, those of the rehearsal among them."""
        with self._queue.changed:
            self._rehearsal.on = False
            self._queue.release_slot()

    @property
    def performed(self) -> bool:
        """Whether each call that was answered with objects missing has come again."""
        with self._queue.changed:
            return self._rehearsal.repeated

    def drain(self) -> None:
        """Wait until nothing runs and nothing waits to run."""
        with self._queue.changed:
            self._queue.release_slot()
            self._queue.changed.wait_for(lambda: not self._queue.tasks)

    # --- a call

    def serve(self, received: CompileGraph, environment: Mapping[str, str], say: Say) -> int:
        """Make all objects of a graph: ninja's exit code."""
        with self._queue.changed:
            known = self._rehearsal.find(received, environment)
        if known is not None:
            return self._serve_again(known, say)
        self._supersede(received)
        batch = self._receive(received, environment, say)
        works = self._settle(batch)
        tasks = [self._units.first_task(work) for work in works]
        with self._queue.changed:
            batch.rehearsed = self._rehearsal.on and can_wait(tasks) and self._is_long(tasks)
            self._rehearsal.add(batch)
            if batch.rehearsed:
                self._queue.keep_slot()
        self._reporter.emit(self._received(batch.graph, tasks))
        self._queue.begin(batch, works, tasks)
        return self._answer(batch)

    def _receive(self, received: CompileGraph, environment: Mapping[str, str], say: Say) -> Batch:
        """Return a new call: its graph, changed by the passes, whose files are written."""
        graph = received
        for change in self._passes:
            graph = change(graph)
        for file in graph.files:
            objects.write_generated(file)
        batch = Batch(next(self._numbers), received, graph, _headers(graph), environment, say)
        self._reporter.expect(batch)
        return batch

    def _settle(self, batch: Batch) -> list[Work]:
        """Place what needs no compiler; return what is left to be made."""
        self._placement.take_empty(batch)
        # After these: where merged units were compiled apart, their objects take the place of empty ones.
        works = []
        made_now = {unit.output for unit in batch.graph.compiled}
        for unit in batch.graph.compiled:
            # What is made of other objects can be looked up only when these are there.
            if made_now.intersection(unit.needs) or not self._placement.take_stored(unit, batch):
                works.append(self._units.begin(unit, batch))
            else:
                made_now.discard(unit.output)
        return works

    def _is_long(self, tasks: Iterable[Task]) -> bool:
        return self._seconds(task for task in tasks if not is_host(task.work.unit)) >= LEAST_SECONDS

    def _seconds(self, tasks: Iterable[Task]) -> float:
        trials = [first_trial(task, self._costs) for task in tasks]
        return simulate(trials, self._queue.scheduler.slots, self._queue.scheduler.budget_bytes).seconds

    def _received(self, graph: CompileGraph, tasks: Sequence[Task]) -> GraphReceived:
        empty = [unit for unit in graph.units if unit.empty]
        parts = {output for unit in graph.units for output in unit.members}
        merged = sum(unit.output in parts for unit in empty)
        return GraphReceived(
            units=len(graph.units),
            compile=len(tasks),
            merged=merged,
            empty=len(empty) - merged,
            reused=len(graph.units) - len(tasks) - len(empty),
            predicted_seconds=self._seconds(tasks),
        )

    def _serve_again(self, batch: Batch, say: Say) -> int:
        """Answer a call that upstream's build made before, in the rehearsal."""
        with self._queue.changed:
            batch.resumed, batch.say = not self._rehearsal.on, say
            unsaid, batch.unsaid = batch.unsaid, []
        for line in unsaid:
            say(line)
        return self._answer(batch)

    def _supersede(self, received: CompileGraph) -> None:
        """End what calls of the rehearsal still do for the objects of a new one.

        While it goes on, a call that shares objects with another waits for that, as it would for its answer without a
        rehearsal. Afterwards upstream's build asks for them in another way, and what was begun does not count.
        """
        outputs = {unit.output for unit in received.units}
        with self._queue.changed:
            for batch in self._rehearsal.superseded(outputs):
                self._queue.forget(batch)
                self._reporter.forget(batch)
            self._queue.changed.wait_for(lambda: not any(_is_shared(task, outputs) for task in self._queue.tasks))

    # --- its answer

    def _answer(self, batch: Batch) -> int:
        """Wait for what a call is answered with, and put it where upstream's link expects it: ninja's exit code."""
        if not batch.rehearsed:
            return self._wait(batch)
        code = self._wait(batch) if batch.resumed else self._wait_for_host(batch)
        if code == 0:
            self._placement.answer(batch)
        batch.say = batch.unsaid.append
        return code

    def _wait(self, batch: Batch) -> int:
        with self._queue.changed:
            self._queue.changed.wait_for(lambda: not self._queue.left_of(batch))
            return 1 if batch.left else 0

    def _wait_for_host(self, batch: Batch) -> int:
        """Wait for the units of a call that hold no kernels; where a kernel failed by then, for all that runs."""
        queue = self._queue
        with queue.changed:
            queue.changed.wait_for(lambda: not any(is_host(work.unit) for work in queue.left_of(batch)))
            if any(is_host(unit) and unit.output not in batch.objects for unit in batch.graph.units):
                return 1
            if queue.is_ending:
                return self._wait(batch)
            if self._seconds_left(batch) >= LEAST_SECONDS:
                return 0
            queue.release_slot()
            code = self._wait(batch)
            batch.rehearsed = False
            return code

    def _seconds_left(self, batch: Batch) -> float:
        """Return how long the units of a call still take: by now it is known which of its kernels are cached."""
        jobs = {task.id for task in self._queue.tasks if task.work.batch is batch}
        left = [trial for trial in self._queue.trials() if trial.job.id in jobs]
        return simulate(left, self._queue.scheduler.slots, self._queue.scheduler.budget_bytes).seconds


def _is_shared(task: Task, outputs: Collection[str]) -> bool:
    """Say whether a job's object is one of these, and is made for a call that is answered without it."""
    return task.work.batch.rehearsed and task.work.unit.output in outputs


def _headers(graph: CompileGraph) -> tuple[GeneratedFile, ...]:
    """Return the generated files that any unit may include: those that no unit has as its source."""
    sources = {source for unit in graph.units for source in unit.sources}
    return tuple(file for file in graph.files if file.path not in sources)
