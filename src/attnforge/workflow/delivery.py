"""Puts a finished wheel into the folder that the user named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from attnforge.files import disk_errors, file_sha256, replacing
from attnforge.model.plan import BuildPlan
from attnforge.wheelfile.embedded import read_plan
from attnforge.workflow.report import report_of


def deliver(wheel: Path, out: Path, warn: Callable[[str], None]) -> Path:
    """Copy a finished wheel into ``out``, whole or not at all, and return where it is.

    A file of that name with other content is kept under another name, with its report, and ``warn`` gets a line. A
    wheel's name does not say all that determines its bytes (the compilers, the groups, a folder's content). HostError
    where the disk of ``out`` is full or read-only.
    """
    with writing_to(out):
        return _delivered(wheel, out, warn)


def writing_to(out: Path) -> AbstractContextManager[None]:
    """Return what raises HostError where the disk of the user's folder is full or read-only: it names that folder."""
    return disk_errors(out, f"free some space in {out}, or choose another folder with --out; the wheel is kept")


def _delivered(wheel: Path, out: Path, warn: Callable[[str], None]) -> Path:
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
    """Return the SHA-256 of a file, a word where it can't be read: a link to nothing, or a folder."""
    try:
        return file_sha256(path)
    except OSError:
        return "unreadable"


def _kept(target: Path, name: str, wheel: Path) -> str:
    """Rename a wheel and its report, and return the warning."""
    kept = target.with_name(name)
    differing = _differing(read_plan(target), read_plan(wheel))
    target.replace(kept)
    with suppress(FileNotFoundError):
        report_of(target).replace(report_of(kept))
    return f"{target} was there with other content ({differing}); it is now {kept.name}"


def _differing(old: BuildPlan | None, new: BuildPlan | None) -> str:
    """Say how the plans of two wheels of one name differ."""
    if old is None or new is None:
        return "without a readable plan"
    fields = [name for name in type(new).model_fields if getattr(old, name) != getattr(new, name)]
    if not fields:
        return "of the same plan, packed by another attnforge or changed since"
    return f"of another plan: {', '.join(fields)} {'differs' if len(fields) == 1 else 'differ'}"
