"""The jobs of a build: which wait, which run in which slot, and what follows when one ends."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence

from attnforge.compile.run.forecast import Costs
from attnforge.compile.run.held import Held
from attnforge.compile.run.remaining import seconds_left, trials_of
from attnforge.compile.run.revision import revised
from attnforge.compile.run.work import WHOLE, Batch, Task, Work, are_alike, is_step, job_of
from attnforge.compile.seat.server import FirstError
from attnforge.errors import BuildError
from attnforge.model.graph import Unit
from attnforge.schedule.scheduler import Scheduler, Stuck
from attnforge.schedule.simulate import Trial


class Queue:
    """Starts jobs, each in a thread, as the scheduler decides. For many threads at once.

    ``changed`` is the lock of the build's state: the ``scheduler``, the tasks, the slots, and all fields of Batch and
    Work that change, except ``Batch.done``. It is notified whenever jobs end or are dropped. A thread that holds it may
    call all methods except ``join``. Jobs are performed without it.
    """

    def __init__(
        self, slots: int, budget_bytes: int, costs: Costs, errors: FirstError, perform: Callable[[Task], bool]
    ) -> None:
        """Run at most ``slots`` jobs at once, which are expected to hold ``budget_bytes`` together at most.

        ``perform`` does a job and says whether it is done; it must not raise. After the first of ``errors`` nothing
        more is started.
        """
        self.changed = threading.Condition()
        self.scheduler = Scheduler(slots, budget_bytes)
        self._costs = costs
        self._errors = errors
        self._perform = perform
        self._tasks: dict[str, Task] = {}
        self._free_slots = list(range(slots))
        self._workers: set[threading.Thread] = set()
        self._stale = False
        self._closing = False

    # --- what is known

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that have not ended."""
        with self.changed:
            return tuple(self._tasks.values())

    @property
    def is_ending(self) -> bool:
        """Whether nothing more is started."""
        return self._closing or self._errors.error is not None

    def left_of(self, batch: Batch) -> list[Work]:
        """Return the units of a call that have jobs left, once for each job."""
        return [task.work for task in self.tasks if task.work.batch is batch]

    def most_reserved(self, task: Task) -> int:
        """Return the most bytes that were reserved for a running job."""
        with self.changed:
            return self.scheduler.most_reserved(task.id)

    def trials(self) -> list[Trial]:
        """Return what is left of the build, to simulate it."""
        with self.changed:
            return trials_of(self.scheduler, self._tasks, self._costs, time.monotonic())

    def killed(self, task: Task) -> int:
        """Say that the program of a running job was killed.

        Return the bytes that it gets when it is tried again; 0 where it is not.
        """
        with self.changed:
            task.kills += 1
            task.retry_bytes = self.scheduler.killed(task.id)
            return task.retry_bytes

    # --- what is to be done

    def begin(self, batch: Batch, works: Sequence[Work], tasks: Sequence[Task]) -> None:
        """Take the first jobs of a call's units. BuildError where an object is being made for another call."""
        with self.changed:
            batch.left += len(works)
            if self.is_ending:
                return
            self._refuse_twice(works)
            self._add(works, tasks)
            self.replan()
            self.dispatch()

    def _refuse_twice(self, works: Iterable[Work]) -> None:
        being_made = {task.work.unit.output for task in self._tasks.values()}
        for work in works:
            if work.unit.output in being_made:
                raise BuildError(f"two calls of ninja make {work.unit.output} at once")

    def extend(self, tasks: Iterable[Task]) -> None:
        """Take more jobs of units that were begun."""
        with self.changed:
            if not self.is_ending:
                self._add((), tasks)

    def replace(self, work: Work, instead: Sequence[Work], tasks: Sequence[Task]) -> None:
        """Give a unit up, and make others in its place."""
        with self.changed:
            work.given_up = True
            self.drop(lambda other: other is work)
            work.batch.left += len(instead) - 1
            if not any(other.unit.output == work.unit.output for other in instead):
                self.scheduler.release(work.unit.output)
            if not self.is_ending:
                self._add(instead, tasks)

    def _add(self, works: Iterable[Work], tasks: Iterable[Task]) -> None:
        for work in works:
            self.scheduler.hold(work.unit.output)
        added = {task.id: task for task in tasks}
        self._tasks |= added
        self.scheduler.add(map(job_of, added.values()))

    def made(self, work: Work) -> None:
        """Say that a unit's object is in place: what needs it may start."""
        with self.changed:
            work.batch.left -= 1
            self.scheduler.release(work.unit.output)

    # --- what is not to be done

    def cancel(self, job_ids: Collection[str]) -> None:
        """Drop those of the jobs that have not started."""
        with self.changed:
            for job_id in self.scheduler.cancel(job_ids):
                del self._tasks[job_id]
            self.changed.notify_all()

    def drop(self, chosen: Callable[[Work], bool] = lambda work: True) -> None:
        """Start nothing more (of some units). What runs may end, so that its work is kept."""
        self.cancel([task.id for task in self.tasks if chosen(task.work)])

    def forget(self, batch: Batch) -> None:
        """Give a call up, and wait until none of its jobs runs."""
        with self.changed:
            for work in self.left_of(batch):
                work.given_up = True
            self.drop(lambda work: work.batch is batch)
            self.changed.wait_for(lambda: not self.left_of(batch))
            for unit in batch.graph.units:
                self.scheduler.release(unit.output)

    def close(self) -> None:
        """Start nothing more. ``join`` waits for what runs."""
        with self.changed:
            self._closing = True
            self.drop()

    def join(self) -> None:
        """Wait until no job runs."""
        for worker in tuple(self._workers):
            worker.join()

    # --- what runs

    def dispatch(self) -> None:
        """Start what may start."""
        with self.changed:
            try:
                ready = self.scheduler.ready()
            except Stuck as stuck:
                names = ", ".join(self._tasks[job.id].work.unit.name for job in self.scheduler.waiting)
                self._errors.keep(BuildError("units of the graph wait for one another", why=names or str(stuck)))
                self.drop()
                return
            for job in ready:
                self._start(self._tasks[job.id])

    def _start(self, task: Task) -> None:
        task.slot = heapq.heappop(self._free_slots)
        worker = threading.Thread(target=self._work_on, args=(task,), name=task.work.unit.name, daemon=True)
        self._workers.add(worker)
        worker.start()

    def _work_on(self, task: Task) -> None:
        done = task.work.given_up or self._perform(task)
        with self.changed:
            heapq.heappush(self._free_slots, task.slot)
            task.started, task.session = 0.0, 0
            if not done and task.retry_bytes and not self.is_ending:
                self.scheduler.retry(task.id, task.retry_bytes)
                task.retry_bytes = 0
            else:
                self.scheduler.finished(task.id)
                del self._tasks[task.id]
            if self.is_ending:
                self.drop()
            self.dispatch()
            self._workers.discard(threading.current_thread())
            self.changed.notify_all()

    def keep_slot(self) -> None:
        """Keep a slot for host units of later calls. Of two slots none is kept: that is half of the machine."""
        with self.changed:
            if self.scheduler.slots > 2:
                self.scheduler.kept_slots = 1

    def release_slot(self) -> None:
        """Keep no slot for host units any more: kernels are waited for."""
        with self.changed:
            if self.scheduler.kept_slots:
                self.scheduler.kept_slots = 0
                self.dispatch()

    # --- what is learned

    def learned(self, unit: Unit) -> None:
        """Predict again the steps that wait, and whole units like this one; the others follow with ``refresh``."""
        with self.changed:
            self._revise(lambda task: is_step(task) or (task.label == WHOLE and are_alike(task.work.unit, unit)))
            self._stale = True

    def refresh(self) -> None:
        """Predict all that waits again and plan in which order units start, where something was learned since."""
        with self.changed:
            if self._stale:
                self._stale = False
                self._revise(lambda task: True)
                self.replan()

    def change(self, work: Work, unit: Unit) -> None:
        """Go on with a unit that is compiled in another way, and predict its steps again."""
        with self.changed:
            work.unit = unit
            self._revise(lambda task: task.work is work)

    def _revise(self, chosen: Callable[[Task], bool]) -> None:
        waiting = (self._tasks[job.id] for job in self.scheduler.waiting)
        predictions, tails = revised(filter(chosen, waiting), self._costs)
        for job_id, predicted in predictions.items():
            self._tasks[job_id].predicted = predicted
        for job_id, tail in tails.items():
            self._tasks[job_id].tail = tail
        self.scheduler.revise(predictions, tails)

    def replan(self) -> None:
        """Plan in which order units start, from what is known by now."""
        with self.changed:
            self.scheduler.replan(seconds_left(self.scheduler, self._tasks, time.monotonic()))

    def observe(self, held: Callable[[int], Held], taken_bytes: int = 0) -> None:
        """Reserve what running jobs may still need, and start what fits since. ``held`` is asked by session.

        ``taken_bytes`` is what others hold of the budget now.
        """
        with self.changed:
            before = self.scheduler.other_bytes + self.scheduler.reserved_bytes
            self.scheduler.other_bytes = taken_bytes
            for job in self.scheduler.running:
                seen = held(self._tasks[job.id].session)
                self.scheduler.observed(job.id, seen.now, seen.peak)
            now = taken_bytes + self.scheduler.reserved_bytes
            if now < before and self.scheduler.running and not self._closing:
                self.dispatch()
