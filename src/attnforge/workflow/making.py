"""Stages that run upstream's build, and check what it made."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from attnforge.compile.reuse.cache import StepCache
from attnforge.model.plan import BuildPlan
from attnforge.workflow.artifacts import Compiled, CompiledBefore, SourceTree
from attnforge.workflow.compiling import compile_upstream, temporary_folder
from attnforge.workflow.job import Context, Job
from attnforge.workflow.layout import lay_out_source
from attnforge.workflow.packed import compiled_files, refuse_packed, refuse_pure
from attnforge.workflow.providing import inputs_of
from attnforge.workflow.rehearsing import Rehearsing, check_rehearsed
from attnforge.workflow.space import check_space, needs_of


def check_free_space(job: Job) -> None:
    """Raise HostError where a disk has too little space for what will be compiled."""
    there = sum(path.stat().st_size for path in (job.folder / "objects").glob("*.o"))
    temporary = temporary_folder(job.machine)
    check_space(needs_of(job.plan, job.limits.slots, job.folder, temporary, job.out, there))


def check_space_left(context: Context) -> None:
    """Do the same once more: the environment may have taken much of what was free."""
    check_free_space(context.job)


def find_compiled(context: Context) -> CompiledBefore:
    """Find the compiled code that the source comes with."""
    return CompiledBefore(compiled_files(context.of(SourceTree).folder))


def compile_kernels(context: Context) -> Compiled:
    """Run upstream's build: of a universal wheel for its first pair, whose kernels serve all pairs."""
    inputs, source = inputs_of(context), context.job.folder / "source"
    job = replace(context.job, plan=first_plan(context.job.plan))
    rehearsing = Rehearsing(
        folder=source,
        check=partial(check_rehearsed, job=job, inputs=inputs),
        lay_out=partial(lay_out_source, job.machine, job.located, source, _ignore),
        trusted=bool(job.recipe.releases),
    )
    return compile_upstream(job, inputs, context.of(StepCache), rehearsing=rehearsing)


def first_plan(plan: BuildPlan) -> BuildPlan:
    """Return the plan of a universal wheel's first pair: its objects are the same in whatever wheel they are."""
    if not plan.is_universal:
        return plan
    how = {"groups": plan.groups, "shared": plan.shared, "parts": plan.parts}
    return plan.at(plan.pairs[0]).model_copy(update=how)


def check_origin(context: Context) -> None:
    """Raise WheelError where upstream's wheel holds what this build did not compile, or nothing compiled."""
    job, compiled = context.job, context.of(Compiled)
    if not job.recipe.outside:
        refuse_packed(compiled.wheel, context.of(CompiledBefore).files)
        refuse_pure(compiled.wheel, job.plan.package)


def _ignore(_: str) -> None:
    """Warnings about the source were given when it was laid out for the first time."""
