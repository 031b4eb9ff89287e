"""A stage of a build, and the runner: events, the log and the time of each stage are made here and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce

from attnforge.model.events import StageFinished, StageStarted
from attnforge.workflow.job import Context


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of a build: a name and a function.

    ``work`` gets what earlier stages have made and returns what it makes, None for a check. It raises what ends the
    build. ``detail`` says what the stage works on. A stage without it takes no time, and has no events.
    """

    name: str
    work: Callable[[Context], object]
    detail: Callable[[Context], str] | None = None

    def run(self, context: Context) -> Context:
        """Do the work and return the context with what was made."""
        made = self.work(context) if self.detail is None else self._reported(self.detail(context), context)
        return context if made is None else context.having(made)

    def _reported(self, detail: str, context: Context) -> object:
        job, began = context.job, time.monotonic()
        job.observe(StageStarted(self.name, detail))
        job.log.write(f"== {self.name}: {detail}\n")
        made = self.work(context)
        job.observe(StageFinished(self.name, detail, time.monotonic() - began))
        return made


def follow(stages: Iterable[Stage], context: Context) -> Context:
    """Run stages one after the other and return the context with what all have made."""
    return reduce(lambda so_far, stage: stage.run(so_far), stages, context)
