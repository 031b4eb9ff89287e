"""Adds pairs of PyTorch and Python to a universal wheel. It needs the package's source, and compiles no kernels."""

from __future__ import annotations

import time
from pathlib import Path

from attnforge.errors import RequestError
from attnforge.model.events import Observer, ignore
from attnforge.workflow.buildfolder import working_in
from attnforge.workflow.extension import Extension
from attnforge.workflow.job import Context, Job, Limits
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
        job = Job(
            machine=machine,
            plan=extension.plan,
            located=extension.located,
            request=extension.request,
            toolchain=extension.toolchain,
            folder=folder,
            out=out,
            observe=observe,
            log=log,
            limits=Limits.of(machine, extension.request),
            started=started,
            installed=extension.installed,
            pairs=extension.pairs,
            further=extension.pairs,
        )
        return run(EXTENSION, Context(job).having(HeldWheel(extension.wheel, extension.universal)))
