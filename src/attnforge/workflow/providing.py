"""Stages that get what a build needs: its source, its environments, its toolchain."""

from __future__ import annotations

from pathlib import Path

from attnforge.provision.environment import BuildEnvironment
from attnforge.provision.toolchain import Toolchain
from attnforge.resolve.advice import check_source
from attnforge.workflow.artifacts import Packed, SourceTree
from attnforge.workflow.inputs import Inputs, host_compiler_of, provide_pinned
from attnforge.workflow.job import Context
from attnforge.workflow.layout import builder_of, lay_out_source, requirements_of, text_of
from attnforge.workflow.outside import outside_warning
from attnforge.workflow.pairs import PairEnvironments


def provide_source(context: Context) -> SourceTree:
    """Lay the source out. BuildError where it is not what was planned."""
    job = context.job
    return SourceTree(lay_out_source(job.machine, job.located, job.folder / "source", job.warn))


def warn_of_source(context: Context) -> None:
    """Warn of what the source's files say against the plan, and of a build that compiles without ninja."""
    job, source = context.job, context.of(SourceTree).folder
    for warning in check_source(job.plan, lambda name: text_of(source / name)):
        job.warn(warning)
    builder = builder_of(source)
    compiles = job.plan.is_compiled and context.find(Packed) is None
    # Of a package without a recipe the plan says so.
    if builder and compiles and not job.recipe.is_generic:
        job.warn(outside_warning(builder, chosen=job.recipe.outside))


def find_requirements(context: Context) -> PairEnvironments:
    """Read what upstream's build needs. RequestError where the source states it in no form that can be read."""
    job = context.job
    needed = requirements_of(job.plan, job.located, context.of(SourceTree).folder)
    return PairEnvironments(job.machine, job.plan.target.cuda, needed, job.installed)


def provide_environment(context: Context) -> BuildEnvironment:
    """Provide the environment of upstream's build. HostError where it can't be made."""
    target = context.job.plan.target
    return context.of(PairEnvironments).having(target.python, target.torch)


def provide_toolchain(context: Context) -> Toolchain:
    """Provide the toolchain that compiles here. HostError where it can't be had."""
    job = context.job
    compiler = host_compiler_of(job.machine, job.toolchain)
    return provide_pinned(job.machine, job.toolchain, compiler, job.request.cuda_mirror, job.observe)


def inputs_of(context: Context) -> Inputs:
    """Return what upstream's build is given."""
    return inputs_with(context, context.of(SourceTree).folder, context.of(BuildEnvironment))


def inputs_with(context: Context, source: Path, environment: BuildEnvironment) -> Inputs:
    """Return the same with another source folder and environment: those of a pair."""
    compiler = host_compiler_of(context.job.machine, context.job.toolchain)
    return Inputs(source, context.of(Toolchain), environment, compiler)
