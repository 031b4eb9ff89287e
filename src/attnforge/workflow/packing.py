"""Stages that pack our wheel: from upstream's, or from the parts of a universal one."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from attnforge.package.sbom import Vendored, vendored
from attnforge.package.universal import package_universal
from attnforge.package.wheel import package_wheel, torch_warnings
from attnforge.version import BUILDER
from attnforge.workflow.artifacts import Compiled, Packed, Parts, PureWheel, SourceTree
from attnforge.workflow.before import WHEELS, finished_wheels
from attnforge.workflow.job import Context, Job


def package_compiled(context: Context) -> Packed:
    """Pack the wheel of a build that compiled. BuildError where it is not what was planned."""
    compiled = context.of(Compiled)
    inside = vendored(context.of(SourceTree).folder)
    return _package(context.job, compiled.wheel, inside, outside=not compiled.summary.units)


def package_pure(context: Context) -> Packed:
    """Pack the wheel of a pure Python package."""
    return _package(context.job, context.of(PureWheel).path)


def _package(job: Job, upstream: Path, inside: Iterable[Vendored] = (), *, outside: bool = False) -> Packed:
    _begin(job, upstream)
    wheels = finished_wheels(job.folder)
    wheels.mkdir(parents=True)
    return Packed(package_wheel(upstream, wheels, job.plan, BUILDER, inside, outside=outside))


def package_parts(context: Context) -> Packed:
    """Pack a universal wheel where no other build takes it for a finished one: its modules have not been loaded yet."""
    job, parts, upstream = context.job, context.of(Parts), context.of(Compiled).wheel
    _begin(job, upstream)
    folder = job.folder / "unproven"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    inside = vendored(context.of(SourceTree).folder)
    return Packed(package_universal(upstream, folder, job.plan, parts.universal, parts.built, BUILDER, inside))


def keep_proven(context: Context) -> Packed:
    """Keep a universal wheel whose modules load as the finished wheel of its plan."""
    wheel, wheels = context.of(Packed).wheel, finished_wheels(context.job.folder)
    wheels.mkdir(parents=True, exist_ok=True)
    return Packed(wheel.replace(wheels / wheel.name))


def _begin(job: Job, upstream: Path) -> None:
    """Warn of what upstream's metadata asks for, and remove the wheels of earlier builds."""
    for warning in torch_warnings(upstream, job.plan):
        job.warn(warning)
    shutil.rmtree(job.folder / WHEELS, ignore_errors=True)
