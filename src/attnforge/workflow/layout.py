"""Lays the source of a plan out in a folder, and reads what its files say of the build."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from attnforge.model.plan import BuildPlan
from attnforge.workflow.machine import Machine
from attnforge.workflow.outside import other_builder
from attnforge.workflow.sources.kinds import Located

Warn = Callable[[str], None]


def lay_out_source(machine: Machine, plan: BuildPlan, located: Located, into: Path, warn: Warn) -> Path:
    """Lay the plan's source out in ``into``, which is removed first, and return the folder to build.

    An earlier build that was killed may have left half of it there. BuildError where it is not what was planned.
    """
    shutil.rmtree(into, ignore_errors=True)
    laid_out = located.source.lay_out(machine, into)
    pointers = laid_out.pointers
    if pointers:
        warn(f"Git LFS is not asked for the contents of {len(pointers)} files: {', '.join(pointers[:3])}")
    return laid_out.folder


def text_of(path: Path) -> str:
    """Return the text of a file of the source, "" where there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def builder_of(source: Path) -> str:
    """Return the other program by which an unpacked source compiles (``outside.other_builder``)."""
    return other_builder(*(text_of(source / name) for name in ("setup.py", "pyproject.toml")))
