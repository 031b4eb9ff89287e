"""Plots as inline SVG: no library, no script; colors are the page's, so that they serve light, dark and paper alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

# Sizes in the drawing's own units, which are pixels at full width.
_WIDTH, _LABELS, _RIGHT, _ROW, _TOP, _BOTTOM = 880, 210, 24, 30, 26, 40

# Marks differ in shape as well as in color: paper may be grey, and colors look alike to some.
_SHAPES = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0Z",
    "M-4.5 -4.5h9v9h-9Z",
    "M0 -6L6 5H-6Z",
    "M0 -6.5L6.5 0L0 6.5L-6.5 0Z",
    "M0 6L6 -5H-6Z",
    "M-6 -2h4v-4h4v4h4v4h-4v4h-4v-4h-4Z",
)

# How many colors the page has: --side-0 and so on.
COLORS = 8


@dataclass(frozen=True, slots=True)
class Dot:
    """A mark on a row: which side, where, and its tooltip."""

    side: int
    value: float
    title: str


@dataclass(frozen=True, slots=True)
class Row:
    """A labelled row of marks."""

    label: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """A labelled interval with its estimate; ``kind`` is a class of the page's style."""

    label: str
    value: float
    low: float
    high: float
    kind: str


def mark(side: int) -> str:
    """Return a side's mark as a small separate drawing, for legends and tables."""
    return f'<svg class="mark" viewBox="-8 -8 16 16" aria-hidden="true">{_mark(side)}</svg>'


def _mark(side: int, x: float = 0, y: float = 0, title: str = "") -> str:
    told = f"<title>{escape(title)}</title>" if title else ""
    place = f' transform="translate({x:.1f} {y:.1f})"' if x or y else ""
    return f'<path class="s{side % COLORS}" d="{_SHAPES[side % len(_SHAPES)]}"{place}>{told}</path>'


def dots(rows: Sequence[Row], unit: str, limit: float, limit_label: str) -> str:
    """Return a plot of rows of marks from 0 on, with a line at what the GPU was measured to reach."""
    most = max((dot.value for row in rows for dot in row.dots), default=0.0)
    end = max(most, limit) * 1.04 or 1.0

    def x(value: float) -> float:
        return _LABELS + (_WIDTH - _LABELS - _RIGHT) * value / end

    return _drawing(len(rows), f"{unit} of each side in each shape", _dots(rows, unit, limit, limit_label, end, x))


def _dots(rows: Sequence[Row], unit: str, limit: float, limit_label: str, end: float, x: object) -> Iterator[str]:
    assert callable(x)
    bottom = _TOP + len(rows) * _ROW
    yield from _axis(ticks(0.0, end), x, bottom, lambda tick: f"{tick:,g}", unit)
    yield f'<line class="limit" x1="{x(limit):.1f}" x2="{x(limit):.1f}" y1="{_TOP - 6}" y2="{bottom}"/>'
    yield f'<text class="limit" x="{x(limit) + 4:.1f}" y="{_TOP - 10}" text-anchor="end">{escape(limit_label)}</text>'
    for at, row in enumerate(rows):
        y = _TOP + (at + 0.5) * _ROW
        yield _label(row.label, y)
        yield f'<line class="row" x1="{_LABELS}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'
        yield from (_mark(dot.side, x(dot.value), y, dot.title) for dot in row.dots)


def ranges(rows: Sequence[Range]) -> str:
    """Return a plot of ratios with their intervals about 1, in percent more or less than it."""
    reach = max((abs(end - 1) for row in rows for end in (row.low, row.high)), default=0.0)
    reach = max(reach, 0.02) * 1.1

    def x(value: float) -> float:
        return _LABELS + (_WIDTH - _LABELS - _RIGHT) * (value - 1 + reach) / (2 * reach)

    return _drawing(len(rows), "time of B over time of A, with intervals", _ranges(rows, reach, x))


def _ranges(rows: Sequence[Range], reach: float, x: object) -> Iterator[str]:
    assert callable(x)
    bottom = _TOP + len(rows) * _ROW
    marks = [1 + tick for tick in ticks(-reach, reach)]
    yield from _axis(
        marks, x, bottom, lambda tick: f"{100 * (tick - 1):+.3g} %".replace("-", "−"), "time of B against A"
    )
    yield f'<line class="limit" x1="{x(1):.1f}" x2="{x(1):.1f}" y1="{_TOP - 6}" y2="{bottom}"/>'
    yield f'<text class="soft" x="{x(1) - 10:.1f}" y="{_TOP - 10}" text-anchor="end">← B is faster</text>'
    yield f'<text class="soft" x="{x(1) + 10:.1f}" y="{_TOP - 10}">B is slower →</text>'
    for at, row in enumerate(rows):
        y = _TOP + (at + 0.5) * _ROW
        yield _label(row.label, y)
        yield f'<line class="{row.kind}" x1="{x(row.low):.1f}" x2="{x(row.high):.1f}" y1="{y}" y2="{y}"/>'
        yield f'<circle class="{row.kind}" cx="{x(row.value):.1f}" cy="{y}" r="4.5"/>'


def _drawing(rows: int, label: str, parts: Iterator[str]) -> str:
    height = _TOP + rows * _ROW + _BOTTOM
    body = "\n".join(parts)
    return f'<svg class="plot" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label)}">\n{body}\n</svg>'


def _axis(marks: Sequence[float], x: object, bottom: float, told: object, unit: str) -> Iterator[str]:
    assert callable(x) and callable(told)
    for tick in marks:
        yield f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{_TOP}" y2="{bottom}"/>'
        yield f'<text class="soft" x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{told(tick)}</text>'
    yield f'<text class="soft" x="{_WIDTH - _RIGHT}" y="{bottom + 33}" text-anchor="end">{escape(unit)}</text>'


def _label(text: str, y: float) -> str:
    return f'<text x="{_LABELS - 12}" y="{y + 4}" text-anchor="end">{escape(text)}</text>'


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Return round numbers from ``low`` to ``high``: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.ceil(low / step)
    return [round(at * step, 12) for at in range(first, math.floor(high / step) + 1)]
