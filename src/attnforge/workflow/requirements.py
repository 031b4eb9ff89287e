"""What the environment of a build has besides PyTorch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from attnforge.model.plan import BuildPlan
from attnforge.model.versions import applies
from attnforge.recipes.catalogue import UNKNOWN_REQUIREMENTS
from attnforge.workflow.sources.kinds import Located
from attnforge.workflow.upstream import build_requirements


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
