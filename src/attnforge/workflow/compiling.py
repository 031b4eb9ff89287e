"""Runs upstream's build for one Python and one PyTorch, with the engine in place of ninja."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from attnforge.compile.nvcc.prefixes import Prefixes
from attnforge.compile.reuse.cache import StepCache
from attnforge.compile.reuse.reuse import Reuse
from attnforge.compile.reuse.shared import Sharing
from attnforge.compile.run.cost import CostModel
from attnforge.compile.run.engine import Engine, Watch
from attnforge.host.machine import usable_memory
from attnforge.model.graph import Pass
from attnforge.provision.gpus import WITHOUT_NINJA
from attnforge.resolve.estimate import kept_free
from attnforge.resolve.predictions import priors
from attnforge.workflow.answers import answered, other_layout
from attnforge.workflow.artifacts import Compiled
from attnforge.workflow.inputs import Inputs, named_folders
from attnforge.workflow.installers import refuse_installers, refuse_ninja
from attnforge.workflow.job import Job
from attnforge.workflow.machine import Machine
from attnforge.workflow.passes import passes_of, proofs_of
from attnforge.workflow.rehearsing import Rehearsing, build_rehearsed
from attnforge.workflow.upstream import build_wheel
from attnforge.workflow.variables import own_temporary, upstream_environment


def temporary_folder(machine: Machine) -> Path:
    """Return where compilers' temporary files go."""
    return Path(machine.environ.get("TMPDIR") or tempfile.gettempdir())


def _ignore(_: Engine) -> None:
    """Nobody has to end this engine early."""


def compile_upstream(
    job: Job,
    inputs: Inputs,
    cache: StepCache,
    *,
    left: Collection[str] = (),
    answers: Collection[str] | None = None,
    rehearsing: Rehearsing | None = None,
    started: Callable[[Engine], object] = _ignore,
    watch: Watch | None = None,
) -> Compiled:
    """Run upstream's build of a job's plan. HostError, BuildError or the engine's own error where it fails.

    The units of the sources in ``left`` (absolute paths) are left out: their objects are available elsewhere. These
    were made for PyTorch versions that give the same ``answers``; BuildError where this one gives others.
    ``rehearsing`` is given where kernels may be compiled for long. ``started`` gets the engine. ``watch`` gets each
    step that has ended; with it nothing is skipped because an object is cached.
    """
    given = answered(job.machine, job.plan, job.recipe, inputs, job.generated)
    if answers is not None and given != frozenset(answers):
        raise other_layout(job.plan, job.recipe)
    passes = passes_of(job.plan, job.recipe, inputs, job.generated, given, left)
    with _engine(job, inputs, cache, passes, watch) as engine:
        started(engine)
        run = partial(_run, job, inputs, _environment(job, inputs, engine), engine)
        wheel = build_rehearsed(engine, inputs.source, run, rehearsing, job.observe) if rehearsing else run()
        return Compiled(wheel, engine.summary, engine.products, given)


def _engine(job: Job, inputs: Inputs, cache: StepCache, passes: Sequence[Pass], watch: Watch | None) -> Engine:
    """Return the engine that compiles for upstream's build."""
    prefixes = Prefixes(named_folders(inputs, job.generated))
    return Engine(
        folder=job.folder,
        slots=job.limits.slots,
        budget_bytes=job.limits.budget_bytes,
        passes=passes,
        costs=CostModel(job.machine.folders.costs, priors(job.plan, job.recipe)),
        observe=job.observe,
        log=job.log,
        temporary=temporary_folder(job.machine),
        reuse=Reuse(cache, prefixes, Sharing(proofs_of(job.plan)), whole=watch is None),
        watch=watch,
        free=partial(_free_memory, kept_free(job.machine.host)),
    )


def _free_memory(kept: int) -> int:
    """Return the bytes that compilers may take now, so that ``kept`` stay free."""
    return usable_memory(Path("/")).available_bytes - kept


def _environment(job: Job, inputs: Inputs, engine: Engine) -> dict[str, str]:
    """Return the environment of upstream's build, whose programs and temporary folder are made."""
    seat = engine.seat_folder
    own_temporary(seat).mkdir()
    # In the plan's folder: they are still there when the build was killed and its seat is gone.
    programs = refuse_ninja(refuse_installers(job.folder / "programs"))
    first = (seat, programs)
    return upstream_environment(job.machine, job.plan, job.recipe, inputs, job.generated, first, job.limits.slots)


def _run(job: Job, inputs: Inputs, environment: Mapping[str, str], engine: Engine) -> Path:
    """Run upstream's build once and return its wheel."""

    def told(output: str) -> None:
        if WITHOUT_NINJA in output:
            job.tell("setup.py says use_ninja=False; ninja still compiled it, within the limits of this build")

    return build_wheel(inputs.source, inputs.environment.python, environment, engine, job.folder, job.log, told)
