"""What a recipe may need in code, beside its data."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from attnforge.model.graph import Pass
from attnforge.model.plan import BuildPlan
from attnforge.model.recipe import Recipe

NAMESPACE = "attnforge"
"""The C++ namespace of all that generated files define."""


def is_generated(symbol: str) -> bool:
    """Say whether a mangled name is of something that a generated file declares."""
    return f"{len(NAMESPACE)}{NAMESPACE}" in symbol


class Adapter(Protocol):
    """Passes that only this package needs. They are pure; files of ours that units read are part of the graph."""

    @property
    def crossing(self) -> str:
        """What the questions are about, in words for an error: what is handed to kernels. "" without questions."""
        ...

    def questions(self) -> Mapping[str, str]:
        """Return C++ texts by name; those that compile against the plan's PyTorch are answered with yes."""
        ...

    def passes(self, plan: BuildPlan, recipe: Recipe, folder: str, answers: Collection[str]) -> Sequence[Pass]:
        """Return the passes; generated files go into ``folder``, an absolute path.

        ``answers`` are the names of the questions that were answered with yes.
        """
        ...


class PlainAdapter:
    """A package that needs none."""

    crossing = ""

    def questions(self) -> Mapping[str, str]:
        """Ask nothing."""
        return {}

    def passes(self, plan: BuildPlan, recipe: Recipe, folder: str, answers: Collection[str]) -> Sequence[Pass]:
        """Return no pass."""
        return ()
