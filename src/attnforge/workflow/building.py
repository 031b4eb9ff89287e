"""From a plan to an audited wheel."""

from __future__ import annotations

import time
from pathlib import Path

from attnforge.model.events import Observer, ignore
from attnforge.workflow.artifacts import Packed
from attnforge.workflow.before import finished_wheels
from attnforge.workflow.buildfolder import working_in
from attnforge.workflow.job import Context, Job
from attnforge.workflow.machine import Machine
from attnforge.workflow.making import check_free_space
from attnforge.workflow.pipeline import kind_of, run
from attnforge.workflow.planning import Planned
from attnforge.workflow.results import Built
from attnforge.workflow.space import check_environment_space, check_output
from attnforge.workflow.uptodate import is_whole, up_to_date


def build(machine: Machine, planned: Planned, out: Path, observe: Observer = ignore) -> Built:
    """Carry a plan out and put the wheel and its report into ``out``.

    Whatever was compiled before is used again, also what a killed build left. Two builds of one plan wait for each
    other. Raises HostError, BuildError or WheelError; a wheel that the audit finds bad is not put into ``out``.
    """
    started, plan = time.monotonic(), planned.plan
    check_output(out)
    folder = machine.folders.ensure().builds / plan.slug
    done = up_to_date(machine.folders, plan, out, observe)
    if done is not None:
        return done
    if planned.installed is None:
        check_environment_space(machine, plan)
    with working_in(folder, observe) as log:
        job = Job.of(machine, planned, folder, out, observe, log, started)
        context = Context(job).having(planned.resolution)
        earlier = _earlier(job)
        if earlier is None:
            check_free_space(job)
            return run(kind_of(plan), context)
        return run(kind_of(plan), context.having(earlier))


def _earlier(job: Job) -> Packed | None:
    """Return the wheel that an earlier build of this plan finished, None where it is damaged or there is none."""
    kept = next(iter(sorted(finished_wheels(job.folder).glob("*.whl"))), None)
    if kept is None or is_whole(kept):
        return None if kept is None else Packed(kept)
    job.warn(f"the finished wheel of an earlier build is damaged ({kept.name}); it is made again")
    return None
