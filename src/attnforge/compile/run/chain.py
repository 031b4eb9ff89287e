"""Advances a unit from step to step: an output is cached, shared or put together, else a program runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from attnforge.compile.nvcc.labels import follows, is_shared
from attnforge.compile.nvcc.parts import NotWholeError
from attnforge.compile.nvcc.steps import Step, Tool
from attnforge.compile.reuse.reuse import Reuse
from attnforge.compile.reuse.shared import UnprovenError
from attnforge.compile.run.queue import Queue
from attnforge.compile.run.reporter import Reporter
from attnforge.compile.run.work import Work
from attnforge.model.events import Message
from attnforge.model.graph import Unit

Watch = Callable[[Work, Step], object]
"""Is shown a step of a unit that has ended well."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Advances units from step to step. For many threads at once: what it changes of a unit is under the queue's lock.

    ``finish`` is called when a unit's last step has ended well.
    """

    queue: Queue
    reuse: Reuse
    reporter: Reporter
    watch: Watch
    finish: Callable[[Work], object]

    def advance(self, work: Work, step: Step) -> None:
        """Take note of a step that has ended, and of those after it whose outputs are known."""
        self.watch(work, step)
        self.reuse.keep_step(work, step)
        self._mark(work, step)
        for other in [other for other in work.steps.values() if step.label in other.needs]:
            if self._seek(work, other) and self._is_known(work, other):
                self.advance(work, other)

    def _mark(self, work: Work, step: Step) -> None:
        with self.queue.changed:
            work.done.add(step.label)
            last = len(work.done) == len(work.steps)
        if last and not work.given_up:
            self.finish(work)

    def _seek(self, work: Work, step: Step) -> bool:
        """Say whether all that a step reads is there, to the first that asks after that."""
        with self.queue.changed:
            first = work.done.issuperset(step.needs) and step.label not in work.sought
            work.sought |= {step.label} if first else set()
        return first

    def _is_known(self, work: Work, step: Step) -> bool:
        """Write a step's outputs without its program, where they are known; it is not run then."""
        cached = self.reuse.find_step(work, step)
        shared = not cached and self._share(work, step)
        if not (cached or shared or self._join(work, step)):
            return False
        self.queue.cancel([work.job(step.label)])
        if cached or shared:
            self.reporter.step(step.tool, 0.0, cached=cached, shared=shared)
        return True

    def _share(self, work: Work, step: Step) -> bool:
        """Write what a step would from what another one wrote, if that is proven; otherwise the step has to run."""
        if not is_shared(work.unit, step.label):
            return False
        try:
            self.reuse.share_step(work, step)
        except UnprovenError as error:
            # Its own parts were never planned.
            unit = replace(work.unit, shares=(), parts=None)
            self._change(work, f"{step.label} is run, its output is not proven ({error})", unit)
            return False
        return True

    def _join(self, work: Work, step: Step) -> bool:
        """Write what a step would from what its parts wrote, if they are whole; otherwise the step has to run."""
        if step.tool is not Tool.CICC or not follows(work.unit, step.label):
            return False
        try:
            self.reuse.join_step(work, step)
        except NotWholeError as error:
            self.at_once(work, f"{step.label} is run at once, its parts are not whole: {error}")
            return False
        return True

    def at_once(self, work: Work, why: str) -> None:
        """Compile a unit's kernels at once from here on."""
        self._change(work, why, replace(work.unit, parts=None))

    def _change(self, work: Work, why: str, unit: Unit) -> None:
        self.reporter.emit(Message("info", f"{work.unit.name}: {why}"))
        self.queue.change(work, unit)
