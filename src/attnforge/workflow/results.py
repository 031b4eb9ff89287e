"""Compile results that are used again: this machine's cache, and the shared store where one is configured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from attnforge.compile.reuse.cache import SECRET, StepCache, check_remote, open_remote
from attnforge.compile.run.summary import Summary
from attnforge.errors import AttnforgeError
from attnforge.model.audit import AuditReport
from attnforge.model.finding import Finding, Severity
from attnforge.model.request import Request
from attnforge.workflow.machine import Machine


@dataclass(frozen=True, slots=True)
class Built:
    """What a build made. ``summary`` is None where nothing was compiled: the wheel was finished, or is pure Python."""

    wheel: Path
    report: Path
    audit: AuditReport
    summary: Summary | None
    seconds: float


@contextmanager
def opened_cache(machine: Machine, request: Request, warn: Callable[[str], None]) -> Iterator[StepCache]:
    """Yield the cache; on leaving, uploads end within a bounded time. RequestError or HostError for a bad store."""
    secret = machine.environ.get(SECRET, "").encode()
    remote = open_remote(request.store, machine.environ) if request.store else None
    cache = StepCache(machine.folders.steps, limit_bytes=request.cache_limit, remote=remote, secret=secret, warn=warn)
    try:
        yield cache
    finally:
        cache.close()


def examine_store(url: str, environ: Mapping[str, str]) -> tuple[Finding, ...]:
    """Say whether a shared store can be written and read, and whether its results are sealed; "" is no store."""
    if not url:
        return ()
    try:
        seen = check_remote(open_remote(url, environ))
    except AttnforgeError as error:
        what, why, hint = error.what, error.why, error.hint
        return (_finding(Severity.ERROR, f"{what}: {why}" if why else what, "builds go on without it", hint),)
    if environ.get(SECRET):
        return (_finding(Severity.OK, seen, f"results are sealed with {SECRET}"),)
    means = "whoever can write to the store can put code into your wheels"
    return (_finding(Severity.WARNING, seen, means, f"set {SECRET} to the same secret on all machines"),)


def _finding(severity: Severity, seen: str, means: str, hint: str = "") -> Finding:
    return Finding(code="store", severity=severity, subject="shared store", seen=seen, means=means, hint=hint)
