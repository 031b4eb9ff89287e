"""Counts what the engine does."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from attnforge.compile.reuse.objects import Cost
from attnforge.model.graph import Unit

How = Literal["compiled", "cached", "reused", "merged", "empty"]
"""Compiled now; from the cache across plans; from this plan's folder; part of another unit; left out."""


@dataclass(frozen=True, slots=True)
class UnitResult:
    """How an object came to be. Times in seconds and memory in bytes are those of its compile, whenever that was."""

    name: str
    kernel: str
    output: str
    how: How
    seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class StepCount:
    """How often a tool ran, how often its output was taken from the cache, and the CPU seconds that it took.

    ``shared`` counts how often its output followed from what it wrote for another architecture.
    """

    tool: str
    ran: int
    cached: int
    cpu_seconds: float
    shared: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """What the engine did so far.

    ``cpu_seconds`` were spent now, on what was compiled now; ``peak_bytes`` is the most that compilers held at once;
    ``wall_seconds`` since the engine was entered.
    """

    compiled: int
    cached: int
    reused: int
    merged: int
    empty: int
    cpu_seconds: float
    peak_bytes: int
    wall_seconds: float
    steps: tuple[StepCount, ...]
    units: tuple[UnitResult, ...]


class Tally:
    """Counts. The caller holds a lock."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._units: list[UnitResult] = []
        self._steps: dict[str, StepCount] = {}

    @property
    def done(self) -> int:
        """How many objects are in place."""
        return len(self._units)

    def unit(self, unit: Unit, how: How, cost: Cost) -> None:
        """Count an object that is in place."""
        self._units.append(
            UnitResult(unit.name, unit.kernel, unit.output, how, cost.seconds, cost.cpu_seconds, cost.peak_bytes)
        )

    def forget(self, outputs: Collection[str]) -> None:
        """Count objects no longer: they are made in another way."""
        self._units = [result for result in self._units if result.output not in outputs]

    def step(self, tool: str, cpu_seconds: float, *, cached: bool = False, shared: bool = False) -> None:
        """Count a program that ran, or one that did not have to."""
        seen = self._steps.get(tool, StepCount(tool, 0, 0, 0.0))
        ran, from_cache = seen.ran + (not cached and not shared), seen.cached + cached
        seconds = round(seen.cpu_seconds + cpu_seconds, 3)
        self._steps[tool] = StepCount(tool, ran, from_cache, seconds, seen.shared + shared)

    def summary(self, peak_bytes: int, wall_seconds: float) -> Summary:
        """Return what was counted, with the most that compilers held at once and the time since the beginning."""

        def count(how: How) -> int:
            return sum(result.how == how for result in self._units)

        return Summary(
            compiled=count("compiled"),
            cached=count("cached"),
            reused=count("reused"),
            merged=count("merged"),
            empty=count("empty"),
            cpu_seconds=sum(step.cpu_seconds for step in self._steps.values()),
            peak_bytes=max([peak_bytes, *(result.peak_bytes for result in self._units if result.how == "compiled")]),
            wall_seconds=wall_seconds,
            steps=tuple(self._steps[tool] for tool in sorted(self._steps)),
            units=tuple(self._units),
        )
