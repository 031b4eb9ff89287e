"""The compile engine: receives upstream's graphs through the seat, applies the passes and makes every object."""

from __future__ import annotations

import errno
import hashlib
import heapq
import os
import re
import shlex
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, Self

from attnforge.compile import failures, objects
from attnforge.compile.cost import CostModel
from attnforge.compile.executor import Ended, Executor, Run
from attnforge.compile.objects import Cost, ObjectStore, Stored
from attnforge.compile.scheduler import Job, Scheduler, Stuck, least_seconds
from attnforge.compile.server import Say, Server, write_seat
from attnforge.errors import AttnforgeError, BuildError, HostError
from attnforge.model.cost import Prediction
from attnforge.model.events import (
    Event,
    GraphReceived,
    JobFinished,
    JobRetried,
    JobStarted,
    Message,
    Observer,
    Progress,
)
from attnforge.model.graph import CompileGraph, GeneratedFile, Language, Pass, Unit
from attnforge.process import redact

PROGRESS_SECONDS = 1.0

# A compile that takes longer than predicted is expected to take this share of its time so far in addition: nothing is
# known of it, and "no time left" would be wrong.
OVERDUE_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class UnitResult:
    """How an object came to be. Times in seconds and memory in bytes are those of its compile, whenever that was."""

    name: str
    kernel: str
    output: str
    how: Literal["compiled", "reused", "empty"]
    seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What the engine did so far.

    ``cpu_seconds`` were spent now, on what was compiled now; ``peak_bytes`` is the most that compilers held at once;
    ``wall_seconds`` since the engine was entered.
    """

    compiled: int
    reused: int
    empty: int
    cpu_seconds: float
    peak_bytes: int
    wall_seconds: float
    units: tuple[UnitResult, ...]


@dataclass(slots=True, eq=False)
class _Batch:
    """A call of ninja that is being served. ``pending`` are the outputs that are still to be made."""

    graph: CompileGraph
    headers: tuple[GeneratedFile, ...]
    environment: Mapping[str, str]
    say: Say
    pending: set[str] = field(default_factory=set)
    done: int = 0


@dataclass(slots=True, eq=False)
class _Task:
    """A unit that has to be made. ``started`` is 0 before it runs (monotonic seconds)."""

    unit: Unit
    batch: _Batch
    prediction: Prediction
    key: str = ""
    kills: int = 0
    slot: int = 0
    session: int = 0
    started: float = 0.0


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
    ) -> None:
        """Prepare a build in the plan's ``folder``.

        At most ``slots`` compilers run at once and are expected to hold ``budget_bytes`` together at most.
        ``temporary`` is where compilers may write; what is written is removed. ``python`` runs the seat (ours, if "").
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
        self._scheduler = Scheduler(slots, budget_bytes)
        self._tasks: dict[str, _Task] = {}
        self._results: list[UnitResult] = []
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
        self._executor = Executor([self._temporary])
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
        with self._changed:
            results = tuple(self._results)
        compiled = [result for result in results if result.how == "compiled"]
        peaks = [result.peak_bytes for result in compiled]
        ended = self._ended if self._closing else time.monotonic()
        return Summary(
            compiled=len(compiled),
            reused=sum(result.how == "reused" for result in results),
            empty=sum(result.how == "empty" for result in results),
            cpu_seconds=sum(result.cpu_seconds for result in compiled),
            peak_bytes=max([self._executor.memory.peak_bytes, *peaks]),
            wall_seconds=ended - self._began,
            units=results,
        )

    # --- a call of ninja

    def _serve(self, graph: CompileGraph, environment: Mapping[str, str], say: Say) -> int:
        """Make all objects of a graph: ninja's exit code."""
        try:
            return self._make(graph, environment, say)
        except OSError as error:
            raise self._host_error(error) from error

    def _make(self, graph: CompileGraph, environment: Mapping[str, str], say: Say) -> int:
        for change in self._passes:
            graph = change(graph)
        for file in graph.files:
            objects.write_generated(file)
        batch = _Batch(graph, _headers(graph), environment, say)
        with self._changed:
            self._total += len(graph.units)
        tasks, empty = self._settle(batch)
        jobs = [self._job(task) for task in tasks]
        self._emit(
            GraphReceived(
                units=len(graph.units),
                compile=len(tasks),
                empty=empty,
                reused=len(graph.units) - len(tasks) - empty,
                predicted_seconds=least_seconds(jobs, self._slots, self._budget),
            )
        )
        self._enqueue(batch, tasks, jobs)
        return self._wait(batch)

    def _settle(self, batch: _Batch) -> tuple[list[_Task], int]:
        """Place what needs no compiler; return the tasks that are left, and the number of empty units."""
        tasks, empty = [], 0
        made_now = {unit.output for unit in batch.graph.units}
        for unit in batch.graph.units:
            if unit.empty:
                self._place_empty(unit, batch)
                empty += 1
                made_now.discard(unit.output)
                continue
            # What is made of other objects can be looked up only when these are there.
            key = "" if made_now.intersection(unit.needs) else self._key(unit, batch)
            if key and self._reuse(unit, batch, key):
                made_now.discard(unit.output)
            else:
                tasks.append(_Task(unit, batch, self._costs.predict(unit), key))
        return tasks, empty

    @staticmethod
    def _job(task: _Task) -> Job:
        prediction = task.prediction
        return Job(task.unit.output, prediction.seconds, prediction.peak_bytes, frozenset(task.unit.needs))

    def _enqueue(self, batch: _Batch, tasks: Sequence[_Task], jobs: Iterable[Job]) -> None:
        with self._changed:
            if self._closing or self._server.error is not None:
                batch.pending = {task.unit.output for task in tasks}
                return
            self._refuse_twice(tasks)
            self._scheduler.add(jobs)
            self._tasks.update({task.unit.output: task for task in tasks})
            batch.pending = {task.unit.output for task in tasks}
            self._dispatch()

    def _refuse_twice(self, tasks: Iterable[_Task]) -> None:
        for task in tasks:
            if task.unit.output in self._tasks:
                raise BuildError(f"two calls of ninja make {task.unit.output} at once")

    def _wait(self, batch: _Batch) -> int:
        with self._changed:
            self._changed.wait_for(lambda: not any(output in self._tasks for output in batch.pending))
            return 1 if batch.pending else 0

    # --- the scheduler's side

    def _dispatch(self) -> None:
        """Start what may start. With the lock held."""
        try:
            ready = self._scheduler.ready()
        except Stuck as stuck:
            self._server.keep(BuildError("units of the graph wait for one another", why=str(stuck)))
            self._drop_waiting()
            return
        for job in ready:
            task = self._tasks[job.id]
            task.slot = heapq.heappop(self._free_slots)
            worker = threading.Thread(target=self._work_on, args=(task,), name=task.unit.name, daemon=True)
            self._workers.add(worker)
            worker.start()

    def _work_on(self, task: _Task) -> None:
        done = False
        try:
            done = self._compile(task)
        except BaseException as error:
            known = self._host_error(error) if isinstance(error, OSError) else error
            self._server.keep(known)
            task.batch.say(f"FAILED: {task.unit.output}\n{known}")
        with self._changed:
            heapq.heappush(self._free_slots, task.slot)
            task.started, task.session = 0.0, 0
            if self._must_retry(task, done):
                self._scheduler.retry(task.unit.output, 2 * self._scheduler.reserved(task.unit.output))
            else:
                self._end(task, done)
            if self._closing or self._server.error is not None:
                self._drop_waiting()
            self._dispatch()
            self._workers.discard(threading.current_thread())
            self._changed.notify_all()

    def _must_retry(self, task: _Task, done: bool) -> bool:
        return not done and task.kills == 1 and not self._closing and self._server.error is None

    def _end(self, task: _Task, done: bool) -> None:
        self._scheduler.finished(task.unit.output)
        del self._tasks[task.unit.output]
        if done:
            task.batch.pending.discard(task.unit.output)

    def _drop_waiting(self) -> None:
        """Start nothing more; what runs may end, so that its work is kept. With the lock held."""
        for output in self._scheduler.cancel():
            del self._tasks[output]
        self._changed.notify_all()

    # --- one unit

    def _compile(self, task: _Task) -> bool:
        """Make one object; False where it has to be tried again or the build is ending."""
        unit = task.unit
        if not task.key:
            task.key = self._key(unit, task.batch)
            if self._reuse(unit, task.batch, task.key):
                return True
        self._emit(JobStarted(task.slot, unit.name, task.prediction.seconds, task.prediction.peak_bytes))
        work = self._fresh(self._work / _short(unit.output))
        task.started = time.monotonic()
        ended = self._run(task, work)
        log = redact((work / "log").read_text(encoding="utf-8", errors="replace"))
        self._write_log(unit, log, ended)
        made = work / Path(unit.output).name
        whole = ended.code == 0 and (unit.language is Language.OTHER or _is_filled(made))
        self._emit(JobFinished(task.slot, unit.name, ended.seconds, ended.cpu_seconds, ended.peak_bytes, whole))
        if whole:
            self._keep(task, made, ended)
        elif not ended.stopped:
            self._failed(task, ended, log)
        shutil.rmtree(work, ignore_errors=True)
        return whole

    def _run(self, task: _Task, work: Path) -> Ended:
        """Run the compiler so that it writes into ``work``, whatever happens to it there."""
        unit = task.unit
        output, made = Path(unit.output), work / Path(unit.output).name
        output.parent.mkdir(parents=True, exist_ok=True)
        argv = objects.redirected(unit, str(made), f"{made}.d") if unit.language is not Language.OTHER else None
        if argv is None and unit.language is not Language.OTHER:
            # It may be a link to a stored object, which must not be written into.
            output.unlink(missing_ok=True)
        temporary = self._fresh(self._temporary / _short(unit.output))
        environment = {**task.batch.environment, "TMPDIR": str(temporary)}
        try:
            run = Run(argv or unit.argv, unit.cwd, environment, work / "log")
            ended = self._executor.run(run, lambda session: setattr(task, "session", session))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        if argv is None and ended.code == 0 and unit.language is not Language.OTHER and output.exists():
            shutil.copyfile(output, made)
        return ended

    def _keep(self, task: _Task, made: Path, ended: Ended) -> None:
        unit = task.unit
        cost = Cost(ended.seconds, ended.cpu_seconds, ended.peak_bytes)
        if unit.language is not Language.OTHER:
            stored = self._store.keep(task.key, made, unit.argv, cost)
            objects.place(stored.path, Path(unit.output))
        self._learn(unit, ended)
        self._done(unit, task.batch, "compiled", cost)

    def _failed(self, task: _Task, ended: Ended, log: str) -> None:
        """Raise the error of a compile that failed, or return where it is worth another try."""
        unit = task.unit
        rerun = failures.write_rerun(self.folder, unit, task.batch.environment)
        if ended.code == 0:
            raise failures.no_object(unit, rerun)
        if not failures.was_killed(ended.code, log):
            raise failures.explain(unit, ended.code, log, rerun, (self.folder, self._temporary_root))
        with self._changed:
            reserved = self._scheduler.reserved(unit.output)
        task.kills += 1
        if task.kills > 1:
            raise failures.out_of_memory(unit, ended.peak_bytes, reserved, self._budget, rerun)
        self._emit(JobRetried(unit.name, f"killed (exit code {ended.code})", min(2 * reserved, self._budget)))

    def _learn(self, unit: Unit, ended: Ended) -> None:
        if not unit.cost_key:
            return
        try:
            self._costs.learn(unit, ended.cpu_seconds, ended.peak_bytes)
        except OSError as error:
            if not self._warned:
                self._warned = True
                self._emit(Message("warning", f"what compiles took can't be written down: {error}"))
        with self._changed:
            self._revise(unit.cost_key)

    def _revise(self, cost_key: str) -> None:
        """Predict anew what waits and is like a unit that was just measured. With the lock held."""
        for job in self._scheduler.waiting:
            task = self._tasks[job.id]
            # One that was killed keeps the larger reservation that it was given.
            if task.unit.cost_key == cost_key and not task.kills:
                task.prediction = self._costs.predict(task.unit)
                self._scheduler.revise(job.id, task.prediction.seconds, task.prediction.peak_bytes)

    # --- objects that are at hand

    def _key(self, unit: Unit, batch: _Batch) -> str:
        program = shutil.which(unit.argv[0], path=batch.environment.get("PATH", os.defpath)) or unit.argv[0]
        try:
            return objects.unit_key(unit, batch.headers, program, batch.environment)
        except FileNotFoundError as error:
            raise BuildError(
                f"{unit.name}: the source {error.filename} is missing",
                why="upstream's build named a file that is not there",
                hint="is a submodule empty? use upstream's sdist, or git submodule update --init in its folder",
            ) from error

    def _reuse(self, unit: Unit, batch: _Batch, key: str) -> bool:
        stored = self._store.find(key) if unit.language is not Language.OTHER else None
        if stored is None:
            return False
        objects.place(stored.path, Path(unit.output))
        record = stored.record
        self._done(unit, batch, "reused", Cost(record.seconds, record.cpu_seconds, record.peak_bytes))
        return True

    def _place_empty(self, unit: Unit, batch: _Batch) -> None:
        objects.place(self._empty_object(batch).path, Path(unit.output))
        self._done(unit, batch, "empty", Cost(0.0, 0.0, 0))

    def _empty_object(self, batch: _Batch) -> Stored:
        """Return an object without content, made once by the host compiler: it knows this machine's ELF flags."""
        compiler = _host_compiler(batch)
        key = hashlib.sha256(b"empty\0" + os.fsencode(compiler)).hexdigest()
        with self._making_empty:
            return self._store.find(key) or self._make_empty(batch, compiler, key)

    def _make_empty(self, batch: _Batch, compiler: str, key: str) -> Stored:
        work = self._fresh(self._work / "empty")
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

    def _done(self, unit: Unit, batch: _Batch, how: Literal["compiled", "reused", "empty"], cost: Cost) -> None:
        result = UnitResult(unit.name, unit.kernel, unit.output, how, cost.seconds, cost.cpu_seconds, cost.peak_bytes)
        with self._changed:
            self._results.append(result)
            batch.done += 1
            number = batch.done
        detail = f"{cost.seconds:.1f} s, {cost.peak_bytes / 1e9:.1f} GB" if how == "compiled" else how
        batch.say(f"[{number}/{len(batch.graph.units)}] {unit.name} ({detail})")

    @staticmethod
    def _fresh(folder: Path) -> Path:
        """Return the folder, empty. Its name depends on the unit alone: no object can hold a name that changes."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    # --- what is told

    def _emit(self, event: Event) -> None:
        with self._speaking:
            self._observer(event)

    def _write_log(self, unit: Unit, output: str, ended: Ended) -> None:
        with self._speaking:
            self._log.write(f"$ cd {shlex.quote(unit.cwd)}\n$ {redact(shlex.join(unit.argv))}\n{output}")
            self._log.write("" if not output or output.endswith("\n") else "\n")
            self._log.write(
                f"# {unit.name}: exit code {ended.code}, {ended.seconds:.1f} s, {ended.cpu_seconds:.1f} s of CPU,"
                f" {ended.peak_bytes / 1e9:.2f} GB\n"
            )
            self._log.flush()

    def _tick(self) -> None:
        while not self._finish.wait(PROGRESS_SECONDS):
            with self._changed:
                self._observe_memory()
                progress = self._progress() if self._tasks else None
            if progress is not None:
                self._emit(progress)

    def _observe_memory(self) -> None:
        """Reserve what compilers hold by now, where that is more than was predicted. With the lock held."""
        for job in self._scheduler.running:
            self._scheduler.observed(job.id, self._executor.memory.peak(self._tasks[job.id].session))

    def _progress(self) -> Progress:
        scheduler, memory = self._scheduler, self._executor.memory
        return Progress(
            done=len(self._results),
            total=self._total,
            used_bytes=memory.used_bytes,
            reserved_bytes=scheduler.reserved_bytes,
            budget_bytes=self._budget,
            remaining_seconds=least_seconds(self._left(), self._slots, self._budget),
        )

    def _left(self) -> list[Job]:
        """Return the jobs with the seconds that are left of each."""
        now = time.monotonic()
        running = []
        for job in self._scheduler.running:
            spent = now - (self._tasks[job.id].started or now)
            running.append(Job(job.id, max(job.seconds - spent, OVERDUE_SHARE * spent), job.peak_bytes))
        return [*running, *self._scheduler.waiting]

    def _host_error(self, error: OSError) -> AttnforgeError:
        folders = (self.folder, self._temporary_root)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return failures.no_space("no space left for the build", folders)
        return HostError(
            f"the build can't work in its folders: {error}",
            why=f"it needs to write to {self.folder} and {self._temporary_root}",
            hint="set ATTNFORGE_CACHE and TMPDIR to folders that you can write to",
        )


def _headers(graph: CompileGraph) -> tuple[GeneratedFile, ...]:
    """Return the generated files that any unit may include: those that no unit has as its source."""
    sources = {source for unit in graph.units for source in unit.sources}
    return tuple(file for file in graph.files if file.path not in sources)


def _short(output: str) -> str:
    return hashlib.sha256(output.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _is_filled(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


_COMPILER = re.compile(r"(?:[\w.]+-)*(?:c\+\+|g\+\+|clang\+\+|cc|gcc|clang)(?:-[\d.]+)?")


def _host_compiler(batch: _Batch) -> str:
    """Return the path of the C++ compiler: the one that upstream's build uses, else the usual names on its PATH."""
    cxx = (unit.argv[0] for unit in batch.graph.units if unit.language is Language.CXX)
    # Not a cache or another program in front of the compiler, which needs more than its name.
    used = [program for program in cxx if _COMPILER.fullmatch(Path(program).name)]
    usual = [batch.environment.get("CXX", "").split(" ")[0], "c++", "g++", "clang++"]
    for name in (*used, *usual):
        found = shutil.which(name, path=batch.environment.get("PATH", os.defpath)) if name else None
        if found:
            return found
    raise HostError("no C++ compiler was found", hint="install one (apt install g++), or set CXX to its path")
