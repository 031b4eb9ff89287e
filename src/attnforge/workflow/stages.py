"""What every verb that makes a wheel does in the same way: its folder and log, its stages, its delivery."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from filelock import FileLock, Timeout

from attnforge.embedded import read_plan
from attnforge.errors import WheelError
from attnforge.files import disk_errors, file_sha256, replacing
from attnforge.model.audit import AuditReport, Expected
from attnforge.model.events import Message, Observer, StageFinished, StageStarted
from attnforge.model.plan import BuildPlan
from attnforge.model.recipe import Recipe
from attnforge.workflow.report import report_of

T = TypeVar("T")

_HINT = "free space there, or set ATTNFORGE_CACHE and TMPDIR to folders with space; finished objects are kept"


@dataclass(frozen=True, slots=True)
class Stages:
    """Runs the stages of a verb, one after the other, and tells of them."""

    observe: Observer
    log: IO[str]

    def warn(self, text: str) -> None:
        """Tell of something that does not stop the work."""
        self.observe(Message("warning", text))

    def run(self, name: str, detail: str, work: Callable[[], T]) -> T:
        """Do the work of a stage and return what it returns."""
        began = time.monotonic()
        self.observe(StageStarted(name, detail))
        self.log.write(f"== {name}: {detail}\n")
        result = work()
        self.observe(StageFinished(name, detail, time.monotonic() - began))
        return result


@contextmanager
def working_in(folder: Path, observe: Observer) -> Iterator[Stages]:
    """Yield the stages of work in a folder, which is made; others that work there wait. HostError for a bad disk."""
    with disk_errors(folder, _HINT), _alone(folder, observe):
        log_path = folder / "log.txt"
        observe(Message("info", f"log: {log_path}"))
        with log_path.open("a", encoding="utf-8") as log:
            yield Stages(observe, log)


@contextmanager
def _alone(folder: Path, observe: Observer) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(folder.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        observe(Message("info", "another build of the same plan is running; waiting for it"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def deliver(wheel: Path, out: Path, warn: Callable[[str], None]) -> Path:
    """Copy a finished wheel into ``out``, whole or not at all, and return where it is.

    A file of that name with other content is kept under another name, with its report, and ``warn`` is told: what
    determines the bytes of a wheel is more than its name says (the compilers, the groups, a folder's content).
    """
    out.mkdir(parents=True, exist_ok=True)
    target = out / wheel.name
    if os.path.lexists(target):
        digest = _digest_of(target)
        if digest == file_sha256(wheel):
            return target
        warn(_kept(target, f"{target.name}.{digest[:8]}.old", wheel))
    with replacing(target) as made:
        shutil.copyfile(wheel, made)
    return target


def _digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, or a name for what is no readable file: a link that leads nowhere, a folder."""
    try:
        return file_sha256(path)
    except OSError:
        return "unreadable"


def _kept(target: Path, name: str, wheel: Path) -> str:
    """Rename a wheel and its report, and return what is to be said of that."""
    kept = target.with_name(name)
    differing = _differing(read_plan(target), read_plan(wheel))
    target.replace(kept)
    with suppress(FileNotFoundError):
        report_of(target).replace(report_of(kept))
    return f"{target} was there with other content ({differing}); it is now {kept.name}"


def _differing(old: BuildPlan | None, new: BuildPlan | None) -> str:
    """Say how the plans of two wheels of one name differ."""
    if old is None or new is None:
        return "it says nothing of its plan"
    fields = [name for name in type(new).model_fields if getattr(old, name) != getattr(new, name)]
    if not fields:
        return "of the same plan, packed by another attnforge or changed since"
    return f"of another plan: {', '.join(fields)} {'differs' if len(fields) == 1 else 'differ'}"


def bad_wheel(report: AuditReport, so: str = "was not delivered") -> WheelError:
    """Return the error for a wheel that the audit found bad; ``so`` is what came of that."""
    errors = [finding for finding in report.findings if finding.severity.value == "error"]
    return WheelError(
        f"the wheel {report.wheel} is bad and {so}",
        why="; ".join(": ".join(filter(None, (one.subject, one.seen, one.means))) for one in errors),
        hint=errors[0].hint if errors else "",
        link=errors[0].link if errors else "",
    )


def expected_of(plan: BuildPlan, recipe: Recipe) -> Expected:
    """Return what a plan says that its wheel has."""
    target = plan.target.architectures
    code = recipe.code_of(plan.version, target) if plan.is_compiled else {}
    return Expected(
        architectures=tuple(one.sm for one in target) if plan.is_compiled else (),
        modules=tuple(code),
        code=code,
        alike=not recipe.unit_architectures,
        outside=recipe.outside,
        python="py3" if plan.is_universal else plan.target.abi_tag,
    )
