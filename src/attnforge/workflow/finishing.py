"""Stages at the end of a build: the wheel goes into the folder that the user named, its report beside it."""

from __future__ import annotations

import time
from pathlib import Path

from attnforge.compile.run.summary import Summary
from attnforge.files import file_sha256, write_whole
from attnforge.model.audit import AuditReport
from attnforge.model.events import Finished
from attnforge.model.plan import Resolution
from attnforge.provision.environment import BuildEnvironment
from attnforge.workflow.artifacts import Compiled, Delivered, Packed, Parts
from attnforge.workflow.delivery import deliver, writing_to
from attnforge.workflow.job import Context
from attnforge.workflow.report import report_of, write_extension_report, write_report
from attnforge.workflow.results import Built
from attnforge.workflow.uptodate import first_report, keep_report


def deliver_packed(context: Context) -> Delivered:
    """Put the wheel into the user's folder."""
    job = context.job
    return Delivered(deliver(context.of(Packed).wheel, job.out, job.warn))


def report_build(context: Context) -> Built:
    """Put the report beside the wheel: where an earlier build wrote one for the same bytes, that one."""
    job, placed = context.job, context.of(Delivered).wheel
    seconds = time.monotonic() - job.started
    first = first_report(job.folder, file_sha256(placed))
    report = report_of(placed)
    if first:
        with writing_to(job.out):
            write_whole(report, first)
    else:
        freeze, audit = context.of(BuildEnvironment).freeze, context.of(AuditReport)
        parts = context.find(Parts)
        pairs = parts.summaries if parts else ()
        with writing_to(job.out):
            write_report(placed, context.of(Resolution), freeze, audit, _summary(context), seconds, pairs)
        keep_report(job.folder, report)
    return _built(context, report, seconds)


def report_extension(context: Context) -> Built:
    """Write the report beside a wheel that pairs were added to."""
    job, placed = context.job, context.of(Delivered).wheel
    seconds = time.monotonic() - job.started
    audit, summaries = context.of(AuditReport), context.of(Parts).summaries
    with writing_to(job.out):
        report = write_extension_report(placed, job.plan, job.toolchain, audit, summaries, seconds)
    return _built(context, report, seconds)


def _built(context: Context, report: Path, seconds: float) -> Built:
    job, placed = context.job, context.of(Delivered).wheel
    job.observe(Finished(job.plan.package, str(placed), str(report), seconds))
    return Built(placed, report, context.of(AuditReport), _summary(context), seconds)


def _summary(context: Context) -> Summary | None:
    compiled = context.find(Compiled)
    return compiled.summary if compiled else None
