"""The compile engine: receives upstream's graphs through the seat, applies the passes and makes every object."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import os
import shlex
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Self

from attnforge.compile.graph.commands import redirected
from attnforge.compile.nvcc import steps
from attnforge.compile.nvcc.hostcompiler import host_compiler
from attnforge.compile.nvcc.labels import follows, is_shared
from attnforge.compile.nvcc.parts import NotWholeError, in_parts
from attnforge.compile.nvcc.steps import Step, Tool, UnknownStepsError
from attnforge.compile.reuse import objects, shared
from attnforge.compile.reuse.objects import Cost, ObjectStore, Stored
from attnforge.compile.reuse.reuse import Reuse
from attnforge.compile.reuse.shared import UnprovenError
from attnforge.compile.run import failures
from attnforge.compile.run.aside import is_aside, run_aside, seen_inside
from attnforge.compile.run.cost import CostModel
from attnforge.compile.run.executor import Ended, Executor, Run, own_resident
from attnforge.compile.run.forecast import forecast, forecast_steps, predict
from attnforge.compile.run.rehearsal import LEAST_SECONDS, Rehearsal, can_wait
from attnforge.compile.run.remaining import Countdown, first_trial, seconds_left, trials_of
from attnforge.compile.run.revision import revised
from attnforge.compile.run.summary import How, Summary, Tally
from attnforge.compile.run.work import OPEN, WHOLE, Batch, Product, Task, Work, begin, is_host, job_of, product, seen
from attnforge.compile.seat.server import Say, Server, write_seat
from attnforge.errors import AttnforgeError, BuildError, HostError
from attnforge.files import is_full
from attnforge.model.events import (
    Event,
    GraphReceived,
    JobFinished,
    JobRetried,
    JobStarted,
    Message,
    Observer,
    Progress,
    UnitFinished,
)
from attnforge.model.graph import CompileGraph, GeneratedFile, Language, Pass, Unit
from attnforge.process import redact
from attnforge.schedule.reservation import mean_reserved
from attnforge.schedule.scheduler import Scheduler, Stuck
from attnforge.schedule.simulate import Trial, simulate
from attnforge.schedule.unit import OPENING

PROGRESS_SECONDS = 1.0

Watch = Callable[[Work, Step], object]
"""Is shown a step of a unit that has ended well."""

# Bytes that are free on a disk that is not full; what a step writes is larger.
_FULL = 1 << 20


class Engine:
    """Makes the objects that upstream's build asks for. A context manager, used from one thread; one at a
    time for a folder.

    Put ``seat_folder`` first on PATH of upstream's build. When that has ended, look at ``error`` first: it is the
    real cause where upstream only says that compiling failed. Leaving the context ends every compiler at once and
    keeps every object that was finished.
    """

    def __init__(
        self,
        *,
        folder: Path,
        slots: int,
        budget_bytes: int,
        passes: Sequence[Pass],
        costs: CostModel,
        observe: Observer,
        log: IO[str],
        temporary: Path,
        python: str = "",
        reuse: Reuse | None = None,
        watch: Watch | None = None,
    ) -> None:
        """Prepare a build in the plan's ``folder``.

        At most ``slots`` compilers run at once and are expected to hold ``budget_bytes`` together at most.
        ``temporary`` is where compilers may write; what is written is removed. ``python`` runs the seat (ours, if "").
        ``reuse`` is the cache across plans; without it, only what this plan's folder holds is not made again.
        ``watch`` is shown each step whose outputs are there, while they are, from several threads.
        """
        self.folder = folder
        self.seat_folder = Path()
        self._slots = slots
        self._budget = budget_bytes
        self._passes = tuple(passes)
        self._costs = costs
        self._observer = observe
        self._log = log
        self._temporary_root = temporary
        self._python = python
        self._reuse = reuse or Reuse()
        self._watch = watch or (lambda work, step: None)
        self._scheduler = Scheduler(slots, budget_bytes)
        self._countdown = Countdown(slots, budget_bytes)
        self._own_bytes = own_resident()
        self._stale = False
        self._tasks: dict[str, Task] = {}
        self._tally = Tally()
        self._numbers = itertools.count()
        self._calls = itertools.count()
        self._products: dict[str, Product] = {}
        self._rehearsal = Rehearsal()
        self._free_slots = list(range(slots))
        self._workers: set[threading.Thread] = set()
        self._total = 0
        self._closing = False
        self._warned = False
        self._began = self._ended = time.monotonic()
        # One lock for the state of the build, one so that events and log come one at a time.
        self._changed = threading.Condition()
        self._speaking = threading.RLock()
        self._making_empty = threading.Lock()

    # --- life

    def __enter__(self) -> Self:
        try:
            self._open()
        except OSError as error:
            raise self._host_error(error) from error
        return self

    def _open(self) -> None:
        self._began = time.monotonic()
        self._temporary_root.mkdir(parents=True, exist_ok=True)
        self._work = self.folder / "work"
        self._work.mkdir(parents=True, exist_ok=True)
        self._store = ObjectStore(self.folder / "objects")
        # Only we may enter it (mkdtemp): whoever reaches the socket can run commands.
        self._temporary = Path(tempfile.mkdtemp(prefix="attnforge-", dir=self._temporary_root))
        self._executor = Executor([self._temporary], self._observe_memory)
        self.seat_folder = self._temporary / "seat"
        self.seat_folder.mkdir()
        socket_path = self._temporary / "socket"
        self._server = Server(socket_path, self._serve)
        write_seat(self.seat_folder, self._python or sys.executable, socket_path)
        self._finish = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
        self._ticker.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every compiler at once. Finished objects are kept."""
        with self._changed:
            self._closing = True
            self._drop_waiting()
        self._executor.stop()
        for worker in tuple(self._workers):
            worker.join()
        self._server.close()
        self._finish.set()
        self._ticker.join()
        self._ended = time.monotonic()
        self._executor.close()
        shutil.rmtree(self._work, ignore_errors=True)

    @property
    def error(self) -> AttnforgeError | None:
        """The first real failure; None while all is well. An exception that is our own fault is raised."""
        error = self._server.error
        if error is not None and not isinstance(error, AttnforgeError):
            raise error
        return error

    @property
    def summary(self) -> Summary:
        """What was done so far."""
        ended = self._ended if self._closing else time.monotonic()
        with self._changed:
            return self._tally.summary(self._executor.memory.peak_bytes, ended - self._began)

    @property
    def products(self) -> tuple[Product, ...]:
        """The objects that are in place, sorted by call and path."""
        with self._changed:
            return tuple(sorted(self._products.values(), key=lambda product: (product.call, product.output)))

    # --- a rehearsal

    def rehearse(self) -> None:
        """Answer calls of ninja from here on when their host units are there, and go on with the kernels.

        That is done where enough of them is left to compile; see ``rehearsed`` afterwards.
        """
        with self._changed:
            self._rehearsal.on = True

    @property
    def rehearsed(self) -> bool:
        """Whether a call was answered with objects missing, so that upstream's build has to run again."""
        with self._changed:
            return self._rehearsal.took_place

    def perform(self) -> None:
        """Answer calls of ninja from here on when all objects are there, those of the rehearsal among them."""
        with self._changed:
            self._rehearsal.on = False
            self._release_slot()

    @property
    def performed(self) -> bool:
        """Whether upstream's build has asked again for all that it got an object without content for."""
        with self._changed:
            return self._rehearsal.repeated

    def drain(self) -> None:
        """Wait until nothing runs and nothing waits to run; look at ``error`` then."""
        with self._changed:
            self._release_slot()
            self._changed.wait_for(lambda: not self._tasks)

    # --- a call of ninja

    def _serve(self, graph: CompileGraph, environment: Mapping[str, str], say: Say) -> int:
        """Make all objects of a graph: ninja's exit code."""
        try:
            return self._make(graph, environment, say)
        except OSError as error:
            raise self._host_error(error) from error

    def _make(self, received: CompileGraph, environment: Mapping[str, str], say: Say) -> int:
        if is_aside(received, environment):
            log = self._temporary / f"aside-{next(self._numbers)}"
            return run_aside(received, environment, self._executor, log, say)
        with self._changed:
            known = self._rehearsal.find(received, environment)
        if known is not None:
            return self._make_again(known, say)
        self._make_room(received)
        graph = received
        for change in self._passes:
            graph = change(graph)
        for file in graph.files:
            objects.write_generated(file)
        batch = Batch(next(self._calls), received, graph, _headers(graph), environment, say)
        with self._changed:
            self._total += len(graph.units)
        works = self._settle(batch)
        tasks = [self._first_task(work) for work in works]
        with self._changed:
            batch.rehearsed = self._rehearsal.on and can_wait(tasks) and self._is_long(tasks)
            self._rehearsal.add(batch)
            # For the host units of further calls. Of two slots none is kept: that would be half of the machine.
            if batch.rehearsed and self._slots > 2:
                self._scheduler.kept_slots = 1
        empty, merged = _left_out(graph)
        self._emit(
            GraphReceived(
                units=len(graph.units),
                compile=len(works),
                merged=merged,
                empty=empty,
                reused=len(graph.units) - len(works) - empty - merged,
                predicted_seconds=simulate(
                    [first_trial(task, self._costs) for task in tasks], self._slots, self._budget
                ).seconds,
            )
        )
        self._enqueue(batch, works, tasks)
        return self._answer(batch)

    def _release_slot(self) -> None:
        """Keep no slot for host units any more: the kernels are waited for. With the lock held."""
        if self._scheduler.kept_slots:
            self._scheduler.kept_slots = 0
            self._dispatch()

    def _is_long(self, tasks: Iterable[Task]) -> bool:
        kernels = [first_trial(task, self._costs) for task in tasks if not is_host(task.work.unit)]
        return simulate(kernels, self._slots, self._budget).seconds >= LEAST_SECONDS

    def _answer(self, batch: Batch) -> int:
        """Wait for what a call is answered with, and put it where upstream's link expects it: ninja's exit code."""
        if not batch.rehearsed:
            return self._wait(batch)
        code = self._wait(batch) if batch.resumed else self._wait_for_host(batch)
        if code == 0:
            # Nothing was placed before: a link may have been reading there.
            for unit in batch.graph.units:
                there = batch.objects.get(unit.output) or self._empty_object(batch).path
                objects.place(there, Path(unit.output))
        batch.say = batch.unsaid.append
        return code

    def _make_again(self, batch: Batch, say: Say) -> int:
        """Answer a call that upstream's build made before, in the rehearsal."""
        with self._changed:
            batch.resumed, batch.say = not self._rehearsal.on, say
            unsaid, batch.unsaid = batch.unsaid, []
        for line in unsaid:
            say(line)
        return self._answer(batch)

    def _make_room(self, received: CompileGraph) -> None:
        """End what calls of the rehearsal still do for the objects of a new one.

        While it goes on, a call that shares objects with another waits for that, as it would for its answer without a
        rehearsal. Afterwards upstream's build asks for them in another way, and what was begun does not count.
        """
        outputs = {unit.output for unit in received.units}
        with self._changed:
            for batch in self._rehearsal.superseded(outputs):
                self._forget(batch)
            self._changed.wait_for(lambda: not any(_is_shared(task.work, outputs) for task in self._tasks.values()))

    def _forget(self, batch: Batch) -> None:
        """Give a call up. With the lock held."""
        for work in self._left_of(batch):
            work.given_up = True
        self._drop_waiting(lambda work: work.batch is batch)
        self._changed.wait_for(lambda: not self._left_of(batch))
        outputs = {unit.output for unit in batch.graph.units}
        for output in outputs:
            self._scheduler.release(output)
            self._products.pop(output, None)
        self._total -= len(batch.graph.units)
        self._tally.forget(outputs)

    def _settle(self, batch: Batch) -> list[Work]:
        """Place what needs no compiler; return what is left to be made."""
        parts = {output for unit in batch.graph.units for output in unit.members}
        for unit in batch.graph.units:
            if unit.empty:
                self._place_empty(unit, batch, "merged" if unit.output in parts else "empty")
        # After these: where merged units were compiled apart, their objects take the place of empty ones.
        works = []
        made_now = {unit.output for unit in batch.graph.units if not unit.empty}
        for unit in batch.graph.units:
            if unit.empty:
                continue
            # What is made of other objects can be looked up only when these are there.
            if made_now.intersection(unit.needs) or not self._take_stored(unit, batch):
                works.append(self._work_for(unit, batch))
            else:
                made_now.discard(unit.output)
        return works

    def _work_for(self, unit: Unit, batch: Batch) -> Work:
        number = next(self._numbers)
        # The folders' names depend on the unit alone: no object can hold a name that changes.
        # A unit that is compiled at once, because its parts could not be, is another one.
        parts = (unit.parts.index, *unit.parts.headers) if unit.parts else ()
        told = "\0".join((unit.output, *unit.argv, *parts)).encode("utf-8", "surrogateescape")
        name = hashlib.sha256(told).hexdigest()[:16]
        return begin(unit, batch, self._work / name, self._temporary / name, number)

    def _first_task(self, work: Work) -> Task:
        whole = self._whole_task(work)
        if not work.unit.module_id:
            return whole
        mean = mean_reserved(list(forecast_steps(work.unit, self._costs).values()))
        return Task(work, OPEN, OPENING, tail=whole.predicted.seconds, mean_bytes=mean)

    def _enqueue(self, batch: Batch, works: Sequence[Work], tasks: Sequence[Task]) -> None:
        with self._changed:
            batch.left += len(works)
            if self._closing or self._server.error is not None:
                return
            self._refuse_twice(works)
            for work in works:
                self._scheduler.hold(work.unit.output)
            self._add(tasks)
            self._replan()
            self._dispatch()

    def _refuse_twice(self, works: Iterable[Work]) -> None:
        being_made = {task.work.unit.output for task in self._tasks.values()}
        for work in works:
            if work.unit.output in being_made:
                raise BuildError(f"two calls of ninja make {work.unit.output} at once")

    def _add(self, tasks: Iterable[Task]) -> None:
        """Hand tasks to the scheduler. With the lock held."""
        added = {task.id: task for task in tasks}
        self._tasks |= added
        self._scheduler.add(map(job_of, added.values()))

    def _wait(self, batch: Batch) -> int:
        with self._changed:
            self._changed.wait_for(lambda: not self._left_of(batch))
            return 1 if batch.left else 0

    def _wait_for_host(self, batch: Batch) -> int:
        """Wait for the units of a call that hold no kernels; where a kernel failed by then, for all that runs."""
        with self._changed:
            self._changed.wait_for(lambda: not any(is_host(work.unit) for work in self._left_of(batch)))
            if any(is_host(unit) and unit.output not in batch.objects for unit in batch.graph.units):
                return 1
            if self._server.error is not None or self._closing:
                return self._wait(batch)
            # By now it is known which kernels are cached.
            jobs = self._jobs_of(batch)
            left = [trial for trial in self._left() if trial.job.id in jobs]
            if simulate(left, self._slots, self._budget).seconds >= LEAST_SECONDS:
                return 0
            self._release_slot()
            code = self._wait(batch)
            batch.rehearsed = False
            return code

    def _jobs_of(self, batch: Batch) -> set[str]:
        return {job_id for job_id, task in self._tasks.items() if task.work.batch is batch}

    def _left_of(self, batch: Batch) -> list[Work]:
        """Return the units of a call that have jobs left. With the lock held."""
        return [task.work for task in self._tasks.values() if task.work.batch is batch]

    # --- the scheduler's side

    def _dispatch(self) -> None:
        """Start what may start. With the lock held."""
        try:
            ready = self._scheduler.ready()
        except Stuck as stuck:
            names = ", ".join(self._tasks[job.id].work.unit.name for job in self._scheduler.waiting)
            self._server.keep(BuildError("units of the graph wait for one another", why=names or str(stuck)))
            self._drop_waiting()
            return
        for job in ready:
            task = self._tasks[job.id]
            task.slot = heapq.heappop(self._free_slots)
            worker = threading.Thread(target=self._work_on, args=(task,), name=task.work.unit.name, daemon=True)
            self._workers.add(worker)
            worker.start()

    def _work_on(self, task: Task) -> None:
        done = False
        try:
            done = task.work.given_up or self._perform(task)
        except BaseException as error:
            known = self._host_error(error) if isinstance(error, OSError) else error
            self._server.keep(known)
            task.work.batch.say(f"FAILED: {task.work.unit.output}\n{known}")
        with self._changed:
            heapq.heappush(self._free_slots, task.slot)
            task.started, task.session = 0.0, 0
            if self._must_retry(task, done):
                self._scheduler.retry(task.id, 2 * self._scheduler.most_reserved(task.id))
            else:
                self._scheduler.finished(task.id)
                del self._tasks[task.id]
            if self._closing or self._server.error is not None:
                self._drop_waiting()
            self._dispatch()
            self._workers.discard(threading.current_thread())
            self._changed.notify_all()

    def _must_retry(self, task: Task, done: bool) -> bool:
        return not done and task.kills == 1 and not self._closing and self._server.error is None

    def _drop_waiting(self, chosen: Callable[[Work], bool] = lambda work: True) -> None:
        """Start nothing more (of some units); what runs may end, so that its work is kept. With the lock held."""
        wanted = [task.id for task in self._tasks.values() if chosen(task.work)]
        for job_id in self._scheduler.cancel(wanted):
            del self._tasks[job_id]
        self._changed.notify_all()

    # --- one job of a unit

    def _perform(self, task: Task) -> bool:
        """Do a job; False where it has to be tried again or the build is ending."""
        if task.label == OPEN:
            return self._open_unit(task.work)
        if task.label == WHOLE:
            return self._at_hand(task.work) or self._compile_whole(task)
        return self._run_step(task, task.work.steps[task.label])

    def _open_unit(self, work: Work) -> bool:
        """Take the object from where it is at hand, or take nvcc's call apart and hand its steps to the scheduler."""
        if self._at_hand(work):
            return True
        self._prepare(work)
        try:
            found = self._dissect(work)
        except UnknownStepsError:
            found = ()
        try:
            found = in_parts(found, work.unit)
        except UnknownStepsError as error:
            self._at_once(work, f"its steps can't be run in parts: {error}")
        work.steps = {step.label: step for step in shared.ordered(found, work.unit)}
        for folder in steps.folders(found):
            Path(folder).mkdir(parents=True, exist_ok=True)
        tasks = [self._step_task(work, step) for step in work.steps.values()] or [self._whole_task(work)]
        with self._changed:
            if not self._closing and self._server.error is None:
                self._add(tasks)
        return True

    def _whole_task(self, work: Work) -> Task:
        return Task(work, WHOLE, forecast(work.unit, self._costs))

    def _dissect(self, work: Work) -> tuple[Step, ...]:
        unit = work.unit
        argv = redirected(unit, str(work.made), f"{work.made}.d")
        if argv is None:
            raise UnknownStepsError(f"no output is named: {shlex.join(unit.argv)}")
        module_id = work.temporary / "unit.module_id"
        module_id.write_text(unit.module_id, encoding="utf-8")
        listing = work.folder / "dryrun"
        self._executor.run(Run(steps.dryrun_argv(argv), unit.cwd, work.environment, listing))
        text = listing.read_text(encoding="utf-8", errors="replace")
        found = steps.dissect(text, str(work.temporary), str(module_id), str(work.made), self._reuse.prefixes)
        searched = {name: value for name, value in found[0].items() if name in ("PATH", "LD_LIBRARY_PATH")}
        work.environment = {**work.environment, **searched}
        return found[1]

    def _step_task(self, work: Work, step: Step) -> Task:
        predicted = predict(work.unit, step.label, self._costs)
        needs = frozenset(work.job(label) for label in step.needs)
        return Task(work, step.label, predicted, needs=needs, tail=self._tail(work, step))

    def _tail(self, work: Work, step: Step) -> float:
        """Return the seconds of the longest chain of steps that waits for one."""
        after = [other for other in work.steps.values() if step.label in other.needs]
        chains = (predict(work.unit, other.label, self._costs).seconds + self._tail(work, other) for other in after)
        return max(chains, default=0.0)

    def _run_step(self, task: Task, step: Step) -> bool:
        work = task.work
        ended, log = self._run(task, step.argv, step.cwd or work.unit.cwd, work.folder / step.label.replace(" ", "-"))
        if ended.code == 0 and step.tool is Tool.PTXAS and not all(steps.is_whole(Path(path)) for path in step.writes):
            # On a full disk that of CUDA 13.0 does, and exits with 0.
            ended, log = replace(ended, code=1), f"{log}\nptxas error : its output is not whole\n"
        log += _full_disk(work.temporary) if ended.code else ""
        self._report(task, ended, log, step.argv)
        if ended.code == 0:
            self._learn(task, ended)
            self._reuse.settle(step)
            self._advance(work, step)
        elif not ended.stopped and not work.given_up:
            self._failed(task, ended, log)
        return ended.code == 0 or work.given_up

    def _advance(self, work: Work, step: Step) -> None:
        """Take note of a step that has ended, and of those after it whose outputs are known."""
        self._watch(work, step)
        self._reuse.keep_step(work, step)
        self._mark(work, step)
        following = [other for other in work.steps.values() if step.label in other.needs]
        for other in following:
            if not self._seek(work, other):
                continue
            cached = self._reuse.find_step(work, other)
            shared_ = not cached and self._share(work, other)
            if cached or shared_ or self._join(work, other):
                with self._changed:
                    for job_id in self._scheduler.cancel([work.job(other.label)]):
                        del self._tasks[job_id]
                    if cached or shared_:
                        self._tally.step(other.tool, 0.0, cached=cached, shared=shared_)
                self._advance(work, other)

    def _seek(self, work: Work, step: Step) -> bool:
        """Say whether all that a step reads is there, to the first that asks after that."""
        with self._changed:
            first = work.done.issuperset(step.needs) and step.label not in work.sought
            work.sought |= {step.label} if first else set()
        return first

    def _share(self, work: Work, step: Step) -> bool:
        """Write what a step would from what another one wrote, if that is proven; otherwise the step has to run."""
        if not is_shared(work.unit, step.label):
            return False
        try:
            self._reuse.share_step(work, step)
        except UnprovenError as error:
            self._emit(Message("info", f"{work.unit.name}: {step.label} is run, its output is not proven ({error})"))
            with self._changed:
                # Its own parts were never planned.
                work.unit = replace(work.unit, shares=(), parts=None)
                self._revise(self._waiting_for(work))
            return False
        return True

    def _join(self, work: Work, step: Step) -> bool:
        """Write what a step would from what its parts wrote, if they are whole; otherwise the step has to run."""
        if step.tool is not Tool.CICC or not follows(work.unit, step.label):
            return False
        try:
            self._reuse.join_step(work, step)
        except NotWholeError as error:
            self._at_once(work, f"{step.label} is run at once, its parts are not whole: {error}")
            return False
        return True

    def _at_once(self, work: Work, why: str) -> None:
        """Have a unit's kernels compiled at once from here on."""
        self._emit(Message("info", f"{work.unit.name}: {why}"))
        with self._changed:
            work.unit = replace(work.unit, parts=None)
            self._revise(self._waiting_for(work))

    def _waiting_for(self, work: Work) -> list[Task]:
        return [task for task in self._waiting_tasks() if task.work is work]

    def _compile_whole(self, task: Task) -> bool:
        """Make an object by one command, so that it writes beside the store, whatever happens to it there."""
        work, unit = task.work, task.work.unit
        self._prepare(work)
        output, other = Path(unit.output), unit.language is Language.OTHER
        argv = None if other else redirected(unit, str(work.made), f"{work.made}.d")
        if argv is None and not other:
            # It may be a link to a stored object, which must not be written into.
            output.unlink(missing_ok=True)
        ended, log = self._run(task, self._reuse.observed(work, argv or unit.argv), unit.cwd, work.folder / "log")
        if argv is None and ended.code == 0 and not other and output.exists():
            shutil.copyfile(output, work.made)
        whole = ended.code == 0 and (other or _is_filled(work.made))
        self._report(task, ended, log, unit.argv, whole)
        if whole:
            self._learn(task, ended)
            self._finish_unit(work)
        elif not ended.stopped and not work.given_up:
            self._failed(task, ended, log)
        return whole or work.given_up

    def _prepare(self, work: Work) -> None:
        for folder in (work.folder, work.temporary):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        Path(work.unit.output).parent.mkdir(parents=True, exist_ok=True)
        work.environment = {**seen_inside(work.unit, work.seen), "TMPDIR": str(work.temporary)}

    def _run(self, task: Task, argv: Sequence[str], cwd: str, log: Path) -> tuple[Ended, str]:
        unit = task.work.unit
        self._emit(JobStarted(task.slot, unit.name, task.label, task.predicted.seconds, task.predicted.peak_bytes))
        task.started = time.monotonic()
        run = Run(tuple(argv), cwd, task.work.environment, log)
        ended = self._executor.run(run, lambda session: setattr(task, "session", session))
        with self._changed:
            task.work.spend(ended)
            step = task.work.steps.get(task.label)
            self._tally.step(step.tool if step else unit.language, ended.cpu_seconds, cached=False)
        return ended, redact(log.read_text(encoding="utf-8", errors="replace"))

    def _report(self, task: Task, ended: Ended, log: str, argv: Sequence[str], whole: bool | None = None) -> None:
        unit, ok = task.work.unit, ended.code == 0 if whole is None else whole
        self._write_log(unit, task.label, argv, log, ended)
        spent = (ended.seconds, ended.cpu_seconds, ended.peak_bytes)
        self._emit(JobFinished(task.slot, unit.name, task.label, *spent, ok, stopped=ended.stopped and not ok))

    def _mark(self, work: Work, step: Step) -> None:
        """Take note that a step has ended well; the last one finishes the unit."""
        with self._changed:
            work.done.add(step.label)
            last = len(work.done) == len(work.steps)
        if last and not work.given_up:
            if not _is_filled(work.made):
                raise failures.no_object(work.unit, self._rerun(work))
            self._finish_unit(work)

    def _finish_unit(self, work: Work) -> None:
        unit = work.unit
        if unit.language is not Language.OTHER:
            self._reuse.keep_unit(work)
            work.reads = self._reuse.reads(work)
            stored = self._store.keep(work.key, work.made, unit.argv, work.spent, work.reads)
            _put(unit, work.batch, stored)
        self._made(work, "compiled", work.spent)

    def _made(self, work: Work, how: How, cost: Cost) -> None:
        """Take note that an object is where the link expects it."""
        for folder in (work.folder, work.temporary):
            shutil.rmtree(folder, ignore_errors=True)
        self._done(work.unit, work.batch, how, cost, work.reads)
        self._emit(UnitFinished(work.unit.name, how, cost.seconds, cost.cpu_seconds, cost.peak_bytes))
        with self._changed:
            work.batch.left -= 1
            self._scheduler.release(work.unit.output)

    # --- what fails

    def _failed(self, task: Task, ended: Ended, log: str) -> None:
        """Raise the error of a compile that failed, or return where it is worth another try."""
        work, unit = task.work, task.work.unit
        killed = failures.was_killed(ended.code, log)
        task.kills += killed
        with self._changed:
            reserved = self._scheduler.most_reserved(task.id)
        if task.kills == 1 and killed:
            again = min(2 * reserved, self._budget)
            self._emit(JobRetried(unit.name, task.label, f"killed (exit code {ended.code})", again))
        elif unit.fallback:
            self._fall_back(work, log)
        elif killed:
            raise failures.out_of_memory(unit, ended.peak_bytes, reserved, self._budget, self._rerun(work))
        elif ended.code == 0:
            raise failures.no_object(unit, self._rerun(work))
        else:
            folders = (self.folder, self._temporary_root)
            raise failures.explain(unit, ended.code, log, self._rerun(work), folders, work.batch.graph.files)

    def _rerun(self, work: Work) -> Path:
        return failures.write_rerun(self.folder, work.unit, work.batch.environment)

    def _fall_back(self, work: Work, log: str) -> None:
        """Make a unit that failed from its fallback: what a pass tried must not fail a build."""
        unit = work.unit
        others = ", ".join(other.name for other in unit.fallback)
        why = failures.first_error(log) or "the compiler was killed"
        self._emit(Message("warning", f"{unit.name} does not compile ({why}); compiling {others} in another way"))
        instead = [
            self._work_for(other, work.batch) for other in unit.fallback if not self._take_stored(other, work.batch)
        ]
        with self._changed:
            work.given_up = True
            self._drop_waiting(lambda other: other is work)
            work.batch.left += len(instead) - 1
            if not any(other.unit.output == unit.output for other in instead):
                self._scheduler.release(unit.output)
            for other in instead:
                self._scheduler.hold(other.unit.output)
            if not self._closing:
                self._add([self._first_task(other) for other in instead])

    # --- what is learned

    def _learn(self, task: Task, ended: Ended) -> None:
        unit = task.work.unit
        if not unit.cost_key:
            return
        try:
            self._costs.learn(
                unit, task.label, ended.cpu_seconds, ended.peak_bytes, ended.late_bytes, ended.early_share
            )
        except OSError as error:
            if not self._warned:
                self._warned = True
                self._emit(Message("warning", f"what compiles took can't be written down: {error}"))
        with self._changed:
            # What was opened is corrected before the next job starts, all that waits once a second.
            self._revise([task for task in self._waiting_tasks() if task.label != OPEN])
            self._stale = True

    def _revise(self, tasks: Iterable[Task]) -> None:
        """Predict jobs that wait again: one like them was measured. With the lock held."""
        predictions, tails = revised(tasks, self._costs)
        for job_id, predicted in predictions.items():
            self._tasks[job_id].predicted = predicted
        for job_id, tail in tails.items():
            self._tasks[job_id].tail = tail
        self._scheduler.revise(predictions, tails)

    def _replan(self) -> None:
        """Plan in which order units are to start, from what is known by now. With the lock held."""
        self._scheduler.replan(seconds_left(self._scheduler, self._tasks, time.monotonic()))

    def _waiting_tasks(self) -> list[Task]:
        return [self._tasks[job.id] for job in self._scheduler.waiting]

    # --- objects that are at hand

    def _key(self, unit: Unit, batch: Batch) -> str:
        program = shutil.which(unit.argv[0], path=batch.environment.get("PATH", os.defpath)) or unit.argv[0]
        try:
            return objects.unit_key(unit, batch.headers, program, seen(unit, batch))
        except FileNotFoundError as error:
            raise BuildError(
                f"{unit.name}: the source {error.filename} is missing",
                why="upstream's build named a file that is not there",
                hint="a source archive may lack files, and a clone's submodule may be empty: build from a whole clone"
                " (attnforge build NAME --source git+URL@TAG, or git submodule update --init in a folder)",
            ) from error

    def _at_hand(self, work: Work) -> bool:
        """Say whether the unit's object is at hand, in this plan's folder or in the cache; then it is in place."""
        unit = work.unit
        work.key = self._key(unit, work.batch)
        stored = self._store.find(work.key) if unit.language is not Language.OTHER else None
        if stored is not None:
            _put(unit, work.batch, stored)
            work.reads = _reads(stored)
            self._made(work, "reused", _cost(stored))
            return True
        found = self._reuse.find_unit(work)
        if found is None:
            return False
        work.folder.mkdir(parents=True, exist_ok=True)
        work.made.write_bytes(found.object)
        work.reads = found.reads
        stored = self._store.keep(work.key, work.made, unit.argv, found.cost, found.reads)
        _put(unit, work.batch, stored)
        self._made(work, "cached", found.cost)
        return True

    def _take_stored(self, unit: Unit, batch: Batch) -> bool:
        """Place a unit's object, or all of its fallback's, from this plan's folder; say whether they were there."""
        found = self._stored(unit, batch)
        for one, stored in found or ():
            _put(one, batch, stored)
            self._done(one, batch, "reused", _cost(stored), _reads(stored))
        return found is not None

    def _stored(self, unit: Unit, batch: Batch) -> list[tuple[Unit, Stored]] | None:
        stored = self._store.find(self._key(unit, batch)) if unit.language is not Language.OTHER else None
        if stored is not None:
            return [(unit, stored)]
        parts = [self._stored(other, batch) for other in unit.fallback]
        return [pair for part in parts for pair in part or ()] if parts and None not in parts else None

    def _place_empty(self, unit: Unit, batch: Batch, how: How) -> None:
        _put(unit, batch, self._empty_object(batch))
        self._done(unit, batch, how, Cost(0.0, 0.0, 0))

    def _empty_object(self, batch: Batch) -> Stored:
        """Return an object without content, made once by the host compiler: it knows this machine's ELF flags."""
        compiler = host_compiler(batch.graph, batch.environment)
        key = hashlib.sha256(b"empty\0" + os.fsencode(compiler)).hexdigest()
        with self._making_empty:
            return self._store.find(key) or self._make_empty(batch, compiler, key)

    def _make_empty(self, batch: Batch, compiler: str, key: str) -> Stored:
        work = self._work / "empty"
        work.mkdir(parents=True, exist_ok=True)
        made = work / "empty.o"
        argv = (compiler, "-x", "c++", "-fPIC", "-c", os.devnull, "-o", str(made))
        ended = self._executor.run(Run(argv, str(work), batch.environment, work / "log"))
        if ended.code != 0 or not _is_filled(made):
            raise HostError(
                "the host compiler can't compile an empty file",
                why=(work / "log").read_text(encoding="utf-8", errors="replace").strip(),
                hint=f"mend it until this works: {shlex.join((*argv[:-1], '/tmp/empty.o'))}",
            )
        return self._store.keep(key, made, argv, Cost(ended.seconds, ended.cpu_seconds, ended.peak_bytes))

    def _done(self, unit: Unit, batch: Batch, how: How, cost: Cost, reads: frozenset[str] | None = None) -> None:
        with self._changed:
            self._tally.unit(unit, how, cost)
            self._products[unit.output] = product(unit, batch, how, reads)
            batch.done += 1
            number = batch.done
        detail = f"{cost.seconds:.1f} s, {cost.peak_bytes / 1e9:.1f} GB" if how == "compiled" else how
        batch.say(f"[{number}/{len(batch.graph.units)}] {unit.name} ({detail})")

    # --- what is told

    def _emit(self, event: Event) -> None:
        with self._speaking:
            self._observer(event)

    def _write_log(self, unit: Unit, label: str, argv: Sequence[str], output: str, ended: Ended) -> None:
        with self._speaking:
            self._log.write(f"$ cd {shlex.quote(unit.cwd)}\n$ {redact(shlex.join(argv))}\n{output}")
            self._log.write("" if not output or output.endswith("\n") else "\n")
            self._log.write(
                f"# {unit.name}{' ' if label else ''}{label}: exit code {ended.code}, {ended.seconds:.1f} s,"
                f" {ended.cpu_seconds:.1f} s of CPU, {ended.peak_bytes / 1e9:.2f} GB\n"
            )
            self._log.flush()

    def _tick(self) -> None:
        while not self._finish.wait(PROGRESS_SECONDS):
            with self._changed:
                if self._stale:
                    self._stale = False
                    self._revise(self._waiting_tasks())
                    self._replan()
                left = self._left() if self._tasks and self._countdown.is_due else []
                other = self._scheduler.other_bytes
            if left:
                self._countdown.simulate(left, other)
            with self._changed:
                progress = self._progress() if self._tasks else None
            if progress is not None:
                self._emit(progress)

    def _observe_memory(self) -> None:
        """Reserve what running jobs may still need, and start what fits since: called after each sample."""
        own = own_resident()
        with self._changed:
            # The budget is what was free when the build began: what attnforge takes since is part of it.
            self._scheduler.other_bytes = max(own - self._own_bytes, 0)
            before = self._scheduler.reserved_bytes
            for job in self._scheduler.running:
                held = self._executor.memory.held(self._tasks[job.id].session)
                self._scheduler.observed(job.id, held.now, held.peak)
            if self._scheduler.reserved_bytes < before and self._scheduler.running and not self._closing:
                self._dispatch()

    def _progress(self) -> Progress:
        scheduler, memory = self._scheduler, self._executor.memory
        return Progress(
            done=self._tally.done,
            total=self._total,
            used_bytes=memory.used_bytes,
            reserved_bytes=scheduler.reserved_bytes,
            budget_bytes=self._budget,
            remaining_seconds=self._countdown.seconds,
        )

    def _left(self) -> list[Trial]:
        return trials_of(self._scheduler, self._tasks, self._costs, time.monotonic())

    def _host_error(self, error: OSError) -> AttnforgeError:
        folders = (self.folder, self._temporary_root)
        if is_full(error):
            return failures.no_space("no space left for the build", folders)
        return HostError(
            f"the build can't work in its folders: {error}",
            why=f"it needs to write to {self.folder} and {self._temporary_root}",
            hint="set ATTNFORGE_CACHE and TMPDIR to folders that you can write to",
        )


def _is_shared(work: Work, outputs: Collection[str]) -> bool:
    """Say whether a unit's object is one of these, and is made for a call that is answered without it."""
    return work.batch.rehearsed and work.unit.output in outputs


def _put(unit: Unit, batch: Batch, stored: Stored) -> None:
    """Put an object where the link expects it. In a rehearsal that is done when the call is answered, not before and
    not after: a link may be reading there, and what it makes is thrown away.
    """
    batch.objects[unit.output] = stored.path
    if not batch.rehearsed:
        objects.place(stored.path, Path(unit.output))


def _left_out(graph: CompileGraph) -> tuple[int, int]:
    """Return how many units are empty because they were left out, and because they are part of another one."""
    parts = {output for unit in graph.units for output in unit.members}
    empty = [unit for unit in graph.units if unit.empty]
    merged = sum(unit.output in parts for unit in empty)
    return len(empty) - merged, merged


def _headers(graph: CompileGraph) -> tuple[GeneratedFile, ...]:
    """Return the generated files that any unit may include: those that no unit has as its source."""
    sources = {source for unit in graph.units for source in unit.sources}
    return tuple(file for file in graph.files if file.path not in sources)


def _cost(stored: Stored) -> Cost:
    record = stored.record
    return Cost(record.seconds, record.cpu_seconds, record.peak_bytes)


def _reads(stored: Stored) -> frozenset[str] | None:
    return None if stored.record.reads is None else frozenset(stored.record.reads)


def _full_disk(folder: Path) -> str:
    """Say so where the disk is full: cicc then ends by a segmentation fault, and fatbinary names no reason (13.0)."""
    space = os.statvfs(folder)
    blocks = space.f_bfree if os.geteuid() == 0 else space.f_bavail
    return f"{folder}: No space left on device\n" if blocks * space.f_frsize < _FULL else ""


def _is_filled(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
