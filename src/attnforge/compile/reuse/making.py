"""A unit that is being made, as far as caches have to know it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from attnforge.compile.nvcc.steps import Step
from attnforge.compile.reuse.objects import Cost
from attnforge.model.graph import GeneratedFile, Unit


@dataclass(slots=True, eq=False)
class Making:
    """A unit that is being made.

    ``files`` are the generated files of its graph, ``seen`` the variables that its compile sees. ``folder`` is where
    its object and logs are made, beside the store; ``temporary`` is for the compilers' own files. ``environment`` is
    that of its programs. ``steps`` are those of nvcc by label, empty for a unit that one program makes. ``keys`` are
    those under which outputs of steps are to be cached. ``spent`` is what its programs took so far.
    """

    unit: Unit
    files: tuple[GeneratedFile, ...]
    seen: Mapping[str, str]
    folder: Path
    temporary: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    spent: Cost = field(default_factory=lambda: Cost(0.0, 0.0, 0))

    @property
    def made(self) -> Path:
        """Where the object is made, before it is stored and placed."""
        return self.folder / Path(self.unit.output).name
