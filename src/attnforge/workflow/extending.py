"""Adds pairs of PyTorch and Python to a universal wheel. It needs the package's source, and compiles no kernels."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from attnforge.errors import RequestError
from attnforge.model.events import Observer, ignore
from attnforge.workflow.buildfolder import working_in
from attnforge.workflow.extension import Extension
from attnforge.workflow.job import Context, Job
from attnforge.workflow.machine import Machine
from attnforge.workflow.pipeline import EXTENSION, run
from attnforge.workflow.results import Built
from attnforge.workflow.space import check_output
from attnforge.workflow.universal.held import HeldWheel


def extend(machine: Machine, extension: Extension, out: Path, observe: Observer = ignore) -> Built:
    """Put a wheel with the further pairs, and its report, into ``out``; the old wheel stays unchanged.

    Modules that the old wheel has stay byte for byte. HostError, BuildError or WheelError.
    """
    if (out / extension.plan.wheel).resolve() == extension.wheel.resolve():
        raise RequestError(
            f"the new wheel would take the place of {extension.wheel}",
            why="its label does not name its pairs",
            hint="--out FOLDER, another one",
        )
    started = time.monotonic()
    check_output(out)
    folder = machine.folders.ensure().builds / extension.plan.slug
    with working_in(folder, observe) as log:
        job = Job.of(machine, extension, folder, out, observe, log, started)
        added = replace(job, toolchain=extension.toolchain, pairs=extension.pairs, further=extension.pairs)
        return run(EXTENSION, Context(added).having(HeldWheel(extension.wheel, extension.universal)))
