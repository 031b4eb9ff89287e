"""Figures of several rounds: median, lowest, highest; as a table for people and as JSON."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from attnforge.version import fingerprint
from measure import Run, say

SCHEMA = 1

Round = Mapping[str, Run]
"""What each side took in one round, by the side's name."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A quantity over all rounds; ``what`` says its unit."""

    what: str
    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, what: str, values: Iterable[float]) -> Figure:
        """Make a figure of one value or more."""
        listed = list(values)
        return cls(what, statistics.median(listed), min(listed), max(listed))


def in_turn(sides: Mapping[str, Callable[[], Run]], count: int) -> list[Round]:
    """Run all sides in each of ``count`` rounds, in the order given and in the reverse of it by turns.

    So a machine that slows down is not taken for a difference.
    """
    rounds: list[Round] = []
    for number in range(count):
        order = sorted(sides, key=list(sides).index, reverse=number % 2 == 1)
        rounds.append({name: sides[name]() for name in order})
        say(f"round {number + 1}: {', '.join(f'{name} {rounds[-1][name]}' for name in sides)}")
    return rounds


def figures(rounds: Sequence[Round], own: str, other: str) -> list[Figure]:
    """Return seconds, memory and ratios of two sides; a ratio is that of one round, own to other."""
    found = []
    for name in (other, own):
        runs = [one[name] for one in rounds]
        found += [
            Figure.of(f"{name}, CPU seconds", (run.cpu for run in runs)),
            Figure.of(f"{name}, wall seconds", (run.wall for run in runs)),
            Figure.of(f"{name}, memory at most, GB", (run.peak_bytes / 1e9 for run in runs)),
        ]
    return [
        *found,
        Figure.of(f"ratio of CPU seconds, {own} / {other}", (one[own].cpu / one[other].cpu for one in rounds)),
        Figure.of(f"ratio of wall seconds, {own} / {other}", (one[own].wall / one[other].wall for one in rounds)),
    ]


def table(found: Sequence[Figure]) -> str:
    """Return the figures as text."""
    width = max(len(figure.what) for figure in found)
    lines = [f"{'':<{width}}  {'median':>10}  {'lowest':>10}  {'highest':>10}"]
    lines += [f"{f.what:<{width}}  {_text(f.median)}  {_text(f.lowest)}  {_text(f.highest)}" for f in found]
    return "\n".join(lines)


def _text(value: float) -> str:
    """Write a number with what is significant of it, in ten columns."""
    return f"{value:>10.1f}" if abs(value) >= 100 else f"{value:>10.2f}" if abs(value) >= 0.1 else f"{value:>10.4f}"


def report(
    benchmark: str, found: Sequence[Figure], notes: Sequence[str], details: Mapping[str, Any], as_json: bool
) -> str:
    """Return what a benchmark prints at its end; ``notes`` say what was compared, counted and assumed."""
    if not as_json:
        return "\n".join([*notes, "", table(found)])
    document = {
        "schema": SCHEMA,
        "benchmark": benchmark,
        "attnforge": fingerprint(),
        "python": platform.python_version(),
        "notes": list(notes),
        "figures": [asdict(figure) for figure in found],
        **details,
    }
    return json.dumps(document, indent=1)


def as_details(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """Return every run of every round, for JSON."""
    return [{name: asdict(run) for name, run in one.items()} for one in rounds]
