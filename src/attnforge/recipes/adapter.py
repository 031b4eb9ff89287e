"""What a recipe may need in code, beside its data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from attnforge.model.graph import Pass
from attnforge.model.plan import BuildPlan
from attnforge.model.recipe import Recipe


class Adapter(Protocol):
    """Passes that only this package needs. They are pure; files of ours that units read are part of the graph."""

    def passes(self, plan: BuildPlan, recipe: Recipe, folder: str) -> Sequence[Pass]:
        """Return the passes; generated files go into ``folder``, an absolute path."""
        ...


class PlainAdapter:
    """A package that needs none."""

    def passes(self, plan: BuildPlan, recipe: Recipe, folder: str) -> Sequence[Pass]:
        """Return no pass."""
        return ()
