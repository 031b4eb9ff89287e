"""The page: whole, self-contained, and safe against what packages say."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from bench_reports import WRONG, benchmark, cell, shape, wheel
from hypothesis import given
from hypothesis import strategies as st

from attnforge.bench import plot, report
from attnforge.bench.page import page
from attnforge.model.benchmark import BenchReport

VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Holds that tags are closed in order; keeps attributes that could fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.fetched += [f"{tag} {name}={value}" for name, value in attrs if name in ("src", "xlink:href", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def made() -> BenchReport:
    rounds = [1.0 + at / 500 for at in range(15)]
    a, b = "FlashAttention 2 A", "FlashAttention 2 B"
    times = {a: rounds, b: [0.9 * ms for ms in rounds], "SDPA flash": rounds}
    evil = report.failed("SDPA cuDNN", {"type": "RuntimeError", "text": "<script>alert('&')</script>"})
    one = cell(shape("video", of="a <film>", link="https://example.org/?a=1&b=2"), times)
    two = cell(shape("next", kind="decode", rows=1), times, SDPA=WRONG)
    done = [one.model_copy(update={"results": (*one.results, evil)}), two]
    return benchmark(done, [wheel(), wheel()], against=report.against(a, b, done))


def test_it_needs_nothing_but_itself(made: BenchReport) -> None:
    text = page(made)
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert not reader.fetched
    assert not {"script", "link", "iframe", "img", "object"} & set(reader.seen)
    assert not re.search(r"@import|url\(", text)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_what_packages_say_is_text(made: BenchReport) -> None:
    text = page(made)
    assert "&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;" in text
    assert 'href="https://example.org/?a=1&amp;b=2">a &lt;film&gt;</a>' in text


def test_it_has_every_cell_side_and_failure(made: BenchReport) -> None:
    text = page(made)
    for one in made.cells:
        assert f"<h3><code>{one.name}</code></h3>" in text
        assert text.count(f"<td><code>{one.name}</code></td>") == 1  # its verdict
    for side in made.sides:
        assert text.count(f"{side.name}</td>") >= 1
        assert f"{side.name}</li>" in text
    assert "it takes 10.0 % less time" in text
    assert '<td class="wrong">wrong</td>' in text
    assert "computes wrong results in next" in text
    # Marks of those that are right: three sides in one cell, two in the other; what is wrong has none.
    assert text.count("<title>") - 1 == 5


def test_bars_are_as_long_as_rates_are_high(made: BenchReport) -> None:
    widths = [float(width) for width in re.findall(r'<rect class="s\d" y="1" height="8" width="([\d.]+)"', page(made))]
    assert len(widths) == 6
    assert widths[0] == pytest.approx(0.9 * widths[1], rel=0.01)
    assert all(0 < width <= 100 for width in widths)


def test_without_anything_timed_there_is_a_page() -> None:
    empty = cell(shape(), {})
    failed = empty.model_copy(update={"results": (report.failed("SDPA flash", {"type": "Hang", "text": "no answer"}),)})
    text = page(benchmark([failed], [wheel(error="ImportError: <undefined symbol>")]))
    assert "can&#x27;t be loaded: ImportError: &lt;undefined symbol&gt;" in text
    assert "no answer" in text


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e5))
def test_ticks_are_round_within_and_not_too_many(low: float, width: float) -> None:
    high = low + width
    found = plot.ticks(low, high)
    assert 2 <= len(found) <= 8
    assert all(low - 1e-6 * width <= tick <= high + 1e-6 * width for tick in found)
    steps = {round((b - a) / width, 6) for a, b in pairwise(found)}
    assert len(steps) == 1 or max(steps) - min(steps) < 1e-4


def test_an_interval_is_drawn_where_it_is() -> None:
    drawn = plot.ranges([plot.Range("one", 0.98, 0.97, 0.99, "faster"), plot.Range("two", 1.0, 0.99, 1.01, "same")])
    middle = float(re.search(r'class="limit" x1="([\d.]+)"', drawn)[1])  # type: ignore[index]
    low, high = (float(re.search(rf'line class="faster"[^>]*{end}="([\d.]+)"', drawn)[1]) for end in ("x1", "x2"))  # type: ignore[index]
    assert low < high < middle
