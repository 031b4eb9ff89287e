"""Lays the source of a plan out in a folder, and reads what its files say of the build and its requirements."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from attnforge.model.plan import BuildPlan
from attnforge.model.versions import applies
from attnforge.recipes.catalogue import UNKNOWN_REQUIREMENTS
from attnforge.workflow.machine import Machine
from attnforge.workflow.outside import other_builder
from attnforge.workflow.sources.kinds import Located
from attnforge.workflow.upstream import build_requirements

Warn = Callable[[str], None]


def lay_out_source(machine: Machine, located: Located, into: Path, warn: Warn) -> Path:
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


def requirements_of(plan: BuildPlan, located: Located, source: Path) -> tuple[str, ...]:
    """Return what the environment of a build has besides torch."""
    # A package without a recipe says itself what its build imports; a recipe's list is complete and pinned.
    if located.recipe.releases:
        return plan.requirements
    own = build_requirements(source)
    return (*without_conflicts(plan.requirements, own), *own)


def without_conflicts(pins: Iterable[str], own: Iterable[str]) -> tuple[str, ...]:
    """Return the pins of every build without a recipe, without those that a source's own requirements rule out."""
    asked = [one for one in map(Requirement, own) if applies(one)]
    return tuple(text for text in pins if text not in UNKNOWN_REQUIREMENTS or _is_allowed(Requirement(text), asked))


def _is_allowed(pin: Requirement, asked: Iterable[Requirement]) -> bool:
    versions = [clause.version for clause in pin.specifier]
    same = [one for one in asked if canonicalize_name(one.name) == canonicalize_name(pin.name)]
    return all(one.specifier.contains(version, prereleases=True) for one in same for version in versions)
