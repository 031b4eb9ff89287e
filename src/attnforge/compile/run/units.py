"""Begins units: their folders, their first job, and the jobs that nvcc's call is taken apart into."""

from __future__ import annotations

import hashlib
import itertools
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

from attnforge.compile.graph.commands import redirected
from attnforge.compile.nvcc import steps
from attnforge.compile.nvcc.dryrun import UnknownStepsError, dryrun_argv
from attnforge.compile.nvcc.prefixes import Prefixes
from attnforge.compile.nvcc.steps import Step
from attnforge.compile.run.aside import seen_inside
from attnforge.compile.run.forecast import Costs, forecast, forecast_steps, predict
from attnforge.compile.run.places import Places
from attnforge.compile.run.work import OPEN, WHOLE, Batch, Task, Work, begin
from attnforge.model.graph import Unit
from attnforge.schedule.reservation import mean_reserved
from attnforge.schedule.unit import OPENING


class Units:
    """Begins the units of a build. For many threads at once; it has no state but a counter."""

    def __init__(self, places: Places, costs: Costs, prefixes: Prefixes) -> None:
        """Make units in the folders of ``places``; ``prefixes`` name the sources in messages."""
        self._places = places
        self._costs = costs
        self._prefixes = prefixes
        self._numbers = itertools.count()

    def begin(self, unit: Unit, batch: Batch) -> Work:
        """Return a unit that is about to be made."""
        # The folders' names depend only on the unit: no object can hold a name that changes.
        # A unit that is compiled at once, because its parts could not be, counts as a different one.
        parts = (unit.parts.index, *unit.parts.headers) if unit.parts else ()
        named = "\0".join((unit.output, *unit.argv, *parts)).encode("utf-8", "surrogateescape")
        name = hashlib.sha256(named).hexdigest()[:16]
        return begin(unit, batch, self._places.work / name, self._places.temporary / name, next(self._numbers))

    def first_task(self, work: Work) -> Task:
        """Return the job that a unit begins with: it is opened where nvcc makes it, else made by its command."""
        whole = Task(work, WHOLE, forecast(work.unit, self._costs))
        if not work.unit.module_id:
            return whole
        mean = mean_reserved(list(forecast_steps(work.unit, self._costs).values()))
        return Task(work, OPEN, OPENING, tail=whole.predicted.seconds, mean_bytes=mean)

    def tasks(self, work: Work) -> list[Task]:
        """Return the jobs of a unit that was opened: its steps, or its command where it has none."""
        if not work.steps:
            return [Task(work, WHOLE, forecast(work.unit, self._costs))]
        return [self._task(work, step) for step in work.steps.values()]

    def _task(self, work: Work, step: Step) -> Task:
        predicted = predict(work.unit, step.label, self._costs)
        needs = frozenset(work.job(label) for label in step.needs)
        return Task(work, step.label, predicted, needs=needs, tail=self._tail(work, step))

    def _tail(self, work: Work, step: Step) -> float:
        """Return the seconds of the longest chain of steps that waits for one."""
        chains = (
            predict(work.unit, other.label, self._costs).seconds + self._tail(work, other)
            for other in work.steps.values()
            if step.label in other.needs
        )
        return max(chains, default=0.0)

    def dissect(self, work: Work, run: Callable[[tuple[str, ...], Path], object]) -> tuple[Step, ...]:
        """Return the steps of a unit's nvcc call; nothing if it has a form that is not known.

        ``run`` runs a command, whose output goes to a file.
        """
        try:
            return self._dissect(work, run)
        except UnknownStepsError:
            return ()

    def _dissect(self, work: Work, run: Callable[[tuple[str, ...], Path], object]) -> tuple[Step, ...]:
        unit = work.unit
        argv = redirected(unit, str(work.made), f"{work.made}.d")
        if argv is None:
            raise UnknownStepsError(f"no output is named: {shlex.join(unit.argv)}")
        module_id = work.temporary / "unit.module_id"
        module_id.write_text(unit.module_id, encoding="utf-8")
        listing = work.folder / "dryrun"
        run(dryrun_argv(argv), listing)
        text = listing.read_text(encoding="utf-8", errors="replace")
        settings, found = steps.dissect(text, str(work.temporary), str(module_id), str(work.made), self._prefixes)
        searched = {name: value for name, value in settings.items() if name in ("PATH", "LD_LIBRARY_PATH")}
        work.environment = {**work.environment, **searched}
        return found


def prepare(work: Work) -> None:
    """Make a unit's folders, empty, and set the variables that its programs see."""
    for folder in (work.folder, work.temporary):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    Path(work.unit.output).parent.mkdir(parents=True, exist_ok=True)
    work.environment = {**seen_inside(work.unit, work.seen), "TMPDIR": str(work.temporary)}


def clear(work: Work) -> None:
    """Remove a unit's folders."""
    for folder in (work.folder, work.temporary):
        shutil.rmtree(folder, ignore_errors=True)
