"""Does the jobs of units: opens them, runs their programs, and takes what these have made."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from attnforge.compile.graph.commands import redirected
from attnforge.compile.nvcc import steps
from attnforge.compile.nvcc.dryrun import UnknownStepsError
from attnforge.compile.nvcc.parts import in_parts
from attnforge.compile.nvcc.steps import Step, Tool
from attnforge.compile.reuse.cache.notices import Notices
from attnforge.compile.reuse.objects import Cost, is_filled
from attnforge.compile.reuse.reuse import Reuse
from attnforge.compile.reuse.shared import ordered
from attnforge.compile.run import failures
from attnforge.compile.run.chain import Chain, Watch
from attnforge.compile.run.cost import CostModel
from attnforge.compile.run.executor import Ended, Executor, Run
from attnforge.compile.run.placement import Placement
from attnforge.compile.run.places import Places
from attnforge.compile.run.queue import Queue
from attnforge.compile.run.reporter import Reporter
from attnforge.compile.run.summary import How
from attnforge.compile.run.units import Units, clear, prepare
from attnforge.compile.run.work import OPEN, WHOLE, Task, Work
from attnforge.compile.seat.server import FirstError
from attnforge.model.events import JobFinished, JobRetried, JobStarted, Message, UnitFinished
from attnforge.model.graph import Language
from attnforge.process import redact


@dataclass(frozen=True, slots=True)
class Compiler:
    """Does jobs, each in the thread that calls ``perform``. For many threads at once.

    It has no lock. What it changes of a unit or a task is under the queue's lock where other threads read it.
    """

    places: Places
    executor: Executor
    queue: Queue
    units: Units
    placement: Placement
    reuse: Reuse
    costs: CostModel
    reporter: Reporter
    errors: FirstError
    notices: Notices
    watch: Watch

    @property
    def _chain(self) -> Chain:
        return Chain(self.queue, self.reuse, self.reporter, self.watch, self._finish_steps)

    def perform(self, task: Task) -> bool:
        """Do a job. False if it has to be tried again, the build is ending or it failed: its error is kept."""
        try:
            return self._perform(task)
        except BaseException as error:
            known = failures.host_error(error, self.places.written) if isinstance(error, OSError) else error
            self.errors.keep(known)
            task.work.batch.say(f"FAILED: {task.work.unit.output}\n{known}")
            return False

    def _perform(self, task: Task) -> bool:
        if task.label == OPEN:
            return self._open(task.work)
        if task.label == WHOLE:
            return self._take(task.work) or self._compile_whole(task)
        return self._run_step(task, task.work.steps[task.label])

    # --- units

    def _open(self, work: Work) -> bool:
        """Take the object from where it is stored, or take nvcc's call apart and queue its steps."""
        if self._take(work):
            return True
        prepare(work)
        found = self.units.dissect(
            work, lambda argv, log: self.executor.run(Run(argv, work.unit.cwd, work.environment, log))
        )
        try:
            found = in_parts(found, work.unit)
        except UnknownStepsError as error:
            self._chain.at_once(work, f"its steps can't be run in parts: {error}")
        work.steps = {step.label: step for step in ordered(found, work.unit)}
        for folder in steps.folders(found):
            Path(folder).mkdir(parents=True, exist_ok=True)
        self.queue.extend(self.units.tasks(work))
        return True

    def _take(self, work: Work) -> bool:
        """Say whether a unit's object was stored or cached; then it is in place."""
        found = self.placement.find(work)
        if found is not None:
            self._made(work, *found)
        return found is not None

    def _finish_steps(self, work: Work) -> None:
        if not is_filled(work.made):
            raise failures.no_object(work.unit, self._rerun(work))
        self._finish(work)

    def _finish(self, work: Work) -> None:
        if work.unit.language is not Language.OTHER:
            self.placement.keep(work)
        self._made(work, "compiled", work.spent)

    def _made(self, work: Work, how: How, cost: Cost) -> None:
        """Take note that an object is where the link expects it."""
        clear(work)
        self.reporter.made(work.unit, work.batch, how, cost, work.reads)
        self.reporter.emit(UnitFinished(work.unit.name, how, cost.seconds, cost.cpu_seconds, cost.peak_bytes))
        self.queue.made(work)

    # --- programs

    def _run_step(self, task: Task, step: Step) -> bool:
        work = task.work
        ended, log = self._run(task, step.argv, step.cwd or work.unit.cwd, work.folder / step.label.replace(" ", "-"))
        if ended.code == 0 and step.tool is Tool.PTXAS and not all(steps.is_whole(Path(path)) for path in step.writes):
            # On a full disk that of CUDA 13.0 does, and exits with 0.
            ended, log = replace(ended, code=1), f"{log}\nptxas error : its output is not whole\n"
        log += failures.full_disk(work.temporary) if ended.code else ""
        self._report(task, step.argv, ended, log, ended.code == 0)
        if ended.code:
            return self._not_done(task, ended, log)
        self._learn(task, ended)
        self.reuse.settle(step)
        self._chain.advance(work, step)
        return True

    def _compile_whole(self, task: Task) -> bool:
        """Make an object by one command, so that it writes beside the store, whatever happens to it there."""
        work, unit = task.work, task.work.unit
        prepare(work)
        output, other = Path(unit.output), unit.language is Language.OTHER
        argv = None if other else redirected(unit, str(work.made), f"{work.made}.d")
        if argv is None and not other:
            # It may be a link to a stored object, which must not be written into.
            output.unlink(missing_ok=True)
        ended, log = self._run(task, self.reuse.observed(work, argv or unit.argv), unit.cwd, work.folder / "log")
        if argv is None and ended.code == 0 and not other and output.exists():
            shutil.copyfile(output, work.made)
        whole = ended.code == 0 and (other or is_filled(work.made))
        self._report(task, unit.argv, ended, log, whole)
        if not whole:
            return self._not_done(task, ended, log)
        self._learn(task, ended)
        self._finish(work)
        return True

    def _run(self, task: Task, argv: Sequence[str], cwd: str, log: Path) -> tuple[Ended, str]:
        """Run a program: how it ended, and what it printed."""
        work, found = task.work, task.predicted
        self.reporter.emit(JobStarted(task.slot, work.unit.name, task.label, found.seconds, found.peak_bytes))
        task.started = time.monotonic()
        ended = self.executor.run(
            Run(tuple(argv), cwd, work.environment, log), lambda session: setattr(task, "session", session)
        )
        with self.queue.changed:
            work.spend(ended)
            # Samples may have missed it, above all where it was killed while it rose.
            self.queue.scheduler.observed(task.id, ended.peak_bytes, ended.peak_bytes)
        step = work.steps.get(task.label)
        self.reporter.step(step.tool if step else work.unit.language, ended.cpu_seconds)
        return ended, redact(log.read_text(encoding="utf-8", errors="replace"))

    def _report(self, task: Task, argv: Sequence[str], ended: Ended, log: str, ok: bool) -> None:
        unit = task.work.unit
        self.reporter.log(unit, task.label, argv, log, ended)
        spent = (ended.seconds, ended.cpu_seconds, ended.peak_bytes)
        self.reporter.emit(JobFinished(task.slot, unit.name, task.label, *spent, ok, stopped=ended.stopped and not ok))

    def _learn(self, task: Task, ended: Ended) -> None:
        unit = task.work.unit
        if not unit.cost_key:
            return
        try:
            self.costs.learn(unit, task.label, ended.cpu_seconds, ended.peak_bytes, ended.late_bytes, ended.early_share)
        except OSError as error:
            self.notices.once("costs", f"what compiles took can't be written: {error}")
        self.queue.learned(unit)

    # --- failures

    def _not_done(self, task: Task, ended: Ended, log: str) -> bool:
        """Say whether a unit that failed is made in another way; raise its error where it is not tried again."""
        if not ended.stopped and not task.work.given_up:
            self._failed(task, ended, log)
        return task.work.given_up

    def _failed(self, task: Task, ended: Ended, log: str) -> None:
        """Raise the error of a compile that failed, or return where it is worth another try."""
        work, unit, budget = task.work, task.work.unit, self.queue.scheduler.budget_bytes
        killed = failures.was_killed(ended.code, log)
        reserved = self.queue.most_reserved(task)
        again = self.queue.killed(task) if killed else 0
        if again:
            self.reporter.emit(JobRetried(unit.name, task.label, f"killed (exit code {ended.code})", again))
        elif unit.fallback:
            self._fall_back(work, log)
        elif killed:
            raise failures.out_of_memory(unit, task.kills, ended.peak_bytes, reserved, budget, self._rerun(work))
        elif ended.code == 0:
            raise failures.no_object(unit, self._rerun(work))
        else:
            files = work.batch.graph.files
            raise failures.explain(unit, ended.code, log, self._rerun(work), self.places.written, files)

    def _rerun(self, work: Work) -> Path:
        return failures.write_rerun(self.places.plan, work.unit, work.batch.environment)

    def _fall_back(self, work: Work, log: str) -> None:
        """Make a unit that failed from its fallback: what a pass tried must not fail a build."""
        unit, batch = work.unit, work.batch
        others = ", ".join(other.name for other in unit.fallback)
        why = failures.first_error(log) or "the compiler was killed"
        self.reporter.emit(Message("warning", f"{unit.name} does not compile ({why}); compiling {others} instead"))
        instead = [
            self.units.begin(other, batch) for other in unit.fallback if not self.placement.take_stored(other, batch)
        ]
        self.queue.replace(work, instead, [self.units.first_task(other) for other in instead])
