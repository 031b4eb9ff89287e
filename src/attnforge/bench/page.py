"""A benchmark as one HTML page without other files: no script, no font, no style from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from importlib import resources

from attnforge.bench import plot, words
from attnforge.bench.statistics import CLOSE, CONFIDENCE, SMALLEST
from attnforge.model.benchmark import Against, BenchReport, Cell, Result, Verdict


def page(report: BenchReport) -> str:
    """Return the page."""
    style = resources.files("attnforge.bench").joinpath("page.css").read_text(encoding="utf-8")
    title = f"Attention on {escape(report.gpu.name)}"
    return "\n".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>",
            f"<h1>{title}</h1>",
            f'<p class="lead">{escape(words.machine(report))}<br>',
            f"Measured rates: {escape(words.yardsticks(report))}</p>",
            *(f'<p class="verdict warning">{escape(text)}</p>' for text in words.wrong(report)),
            *(_against(report.against) if report.against else ()),
            *_glance(report),
            *(line for kind in words.KINDS for line in _kind(report, kind)),
            *_notes(report),
            *_sides(report),
            *_method(report),
            f'<p class="soft">Made by {escape(report.builder)} in {report.seconds:.0f} s, {escape(report.date)}.</p>',
            "</body>\n</html>\n",
        )
    )


def _order(report: BenchReport) -> dict[str, int]:
    return {side.name: at for at, side in enumerate(report.sides)}


# --- two wheels


def _against(held: Against) -> Iterator[str]:
    if held.overall is None:
        yield '<p class="verdict">There is no shape that both wheels were timed in.</p>'
        return
    kind = held.overall.outcome
    yield f'<p class="verdict {kind}"><strong>{escape(words.verdict(held.overall, held.a, held.b))}</strong></p>'
    yield f"<h2>{escape(held.b)} against {escape(held.a)}</h2>"
    yield f'<div class="wide">\n{plot.ranges([_range(said) for said in _verdicts(held)])}\n</div>'
    yield '<div class="wide"><table>\n<tr><th></th><th class="left">B is</th><th>time of B</th><th>interval</th></tr>'
    for said in _verdicts(held):
        figures = (words.signed(said.ratio - 1), f"{words.signed(said.low - 1)} to {words.signed(said.high - 1)}")
        name = f"<code>{escape(said.cell)}</code>" if said.cell else "all together"
        yield f'<tr><td>{name}</td><td class="left {said.outcome}">{said.outcome}</td>{_cells(figures)}</tr>'
    yield "</table></div>"


def _verdicts(held: Against) -> tuple[Verdict, ...]:
    return (*held.cells, held.overall) if held.overall else held.cells


def _range(said: Verdict) -> plot.Range:
    return plot.Range(said.cell or "all together", said.ratio, said.low, said.high, said.outcome)


# --- all at a glance


def _glance(report: BenchReport) -> Iterator[str]:
    yield "<h2>At a glance</h2>"
    yield '<ul class="legend">'
    yield from (
        f"<li>{plot.mark(at)}{escape(side.name)}</li>" for at, side in enumerate(report.sides) if not side.error
    )
    yield "</ul>"
    rates = report.rates
    for by_memory, unit, limit, label in (
        (False, "TFLOP/s", rates.matrix.median, "measured matrix rate"),
        (True, "GB/s", rates.memory.median, "measured memory rate"),
    ):
        rows = [_row(report, cell) for cell in report.cells if words.is_by_memory(cell) == by_memory]
        if rows:
            yield f'<div class="wide">\n{plot.dots(rows, unit, limit, label)}\n</div>'


def _row(report: BenchReport, cell: Cell) -> plot.Row:
    order, by_memory = _order(report), words.is_by_memory(cell)
    return plot.Row(
        cell.name,
        tuple(
            plot.Dot(
                order[result.side],
                result.gbs if by_memory else result.tflops,
                f"{result.side}: {words.rate(cell, result)}, {words.duration(result.ms)}",
            )
            for result in reversed(cell.results)  # the first on top
            if result.is_right
        ),
    )


# --- each cell


def _kind(report: BenchReport, kind: str) -> Iterator[str]:
    cells = [cell for cell in report.cells if cell.shape.kind == kind]
    if cells:
        yield f"<h2>{words.KINDS[kind]}</h2>"
        for cell in cells:
            yield from _cell(report, cell)


def _cell(report: BenchReport, cell: Cell) -> Iterator[str]:
    limit = "memory" if words.is_by_memory(cell) else "matrix"
    of = (
        f'<a href="{escape(cell.shape.link)}">{escape(cell.shape.of)}</a>' if cell.shape.link else escape(cell.shape.of)
    )
    way = "; only the backward pass" if cell.backward else ""
    yield f'<section class="cell">\n<h3><code>{escape(cell.name)}</code></h3>'
    yield f'<p class="soft">{of + ": " if of else ""}{escape(words.sizes(cell.shape))}{way}</p>'
    yield '<div class="wide"><table class="figures">'
    heads = ("", "", "rate", f"of {limit} rate", "time", "spread", "host", "cosine", "largest error")
    yield f"<tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>"
    slowest = max((_rate(cell, result) for result in cell.results if result.status == "timed"), default=1.0)
    for result in cell.results:
        yield from _result(cell, result, _order(report)[result.side], slowest)
    yield "</table></div>\n</section>"


def _rate(cell: Cell, result: Result) -> float:
    return result.gbs if words.is_by_memory(cell) else result.tflops


def _result(cell: Cell, result: Result, side: int, most: float) -> Iterator[str]:
    name = f"<td>{plot.mark(side)}{escape(result.side)}</td>"
    if result.status != "timed" or result.accuracy is None:
        text = escape(words.STATUSES[result.status])
        yield f'<tr>{name}<td class="not" colspan="8" title="{escape(result.text)}">{text}</td></tr>'
        return
    right = f"<td>{result.accuracy.cosine:.6f}</td>" if result.accuracy.right else '<td class="wrong">wrong</td>'
    figures = (
        words.rate(cell, result),
        words.share(cell, result),
        words.duration(result.ms),
        words.spread(result),
        words.duration(result.host_us / 1e3),
    )
    row = ' class="fastest"' if result == cell.fastest else ""
    yield (
        f"<tr{row}>{name}{_bar(cell, result, side, most)}{_cells(figures)}{right}"
        f"<td>{result.accuracy.largest_error:.2g}</td></tr>"
    )


def _cells(texts: Iterable[str]) -> str:
    return "".join(f"<td>{escape(text)}</td>" for text in texts)


def _bar(cell: Cell, result: Result, side: int, most: float) -> str:
    """Return a bar of the rate, with a line from quartile to quartile."""
    width, rate = 100 / (most * 1.03), _rate(cell, result)
    low, high = (rate * result.ms / time for time in (result.high_ms, result.low_ms))
    return (
        '<td class="bar"><svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="s{side % plot.COLORS}" y="1" height="8" width="{rate * width:.2f}"/>'
        f'<line x1="{low * width:.2f}" x2="{high * width:.2f}" y1="5" y2="5"/></svg></td>'
    )


# --- the rest


def _notes(report: BenchReport) -> Iterator[str]:
    notes = words.notes(report)
    if notes:
        yield "<h2>What was not timed</h2>\n<ul>"
        yield from (f"<li>{escape(text)}</li>" for text in notes)
        yield "</ul>"


def _sides(report: BenchReport) -> Iterator[str]:
    yield '<h2>What was timed</h2>\n<div class="wide"><table class="sides">'
    yield "<tr><th></th><th>version</th><th>wheel</th><th>SHA-256</th><th>Python</th></tr>"
    for at, side in enumerate(report.sides):
        wheel = f"<code>{escape(side.wheel)}</code>" if side.wheel else "PyTorch's own"
        figures = f"<td><code>{side.sha256[:16]}</code></td><td>{escape(side.python)}</td>"
        name = f"<td>{plot.mark(at)}{escape(side.name)}</td>"
        yield f'<tr>{name}<td class="long">{escape(side.version)}</td><td class="long">{wheel}</td>{figures}</tr>'
    yield "</table></div>"


def _method(report: BenchReport) -> Iterator[str]:
    yield "<h2>How to read this</h2>\n<dl>"
    for term, text in _TERMS:
        yield f"<dt>{term}</dt><dd>{text.format(rounds=report.rounds)}</dd>"
    if report.against:
        yield f"<dt>verdict</dt><dd>{_VERDICT}</dd>"
    yield "</dl>"


_TERMS = (
    (
        "time",
        "What the GPU takes for a call, by CUDA events: the median of {rounds} rounds. In each round every side has "
        "its turn, in its own process, and the order changes, so that heat and clocks are the same for all. A turn "
        "of short calls is many in a row. Inputs rotate through twice the GPU's L2 cache.",
    ),
    ("spread", "How far the quartiles of the rounds are from the median."),
    (
        "rate",
        "TFLOP/s count 4 · batch · heads · rows · columns · head dimension, half of it where causal, 2.5 times that "
        "for a backward pass. GB/s, for decode, count q, k, v and the output once. The share is of what a large bf16 "
        "matrix product, or a large copy, reached on this GPU between the rounds. Quantized kernels may pass it.",
    ),
    (
        "host",
        "What the CPU takes to issue a call. Where it is more than the time, a program without CUDA graphs runs at "
        "this pace.",
    ),
    (
        "cosine, error",
        "Against attention in float32 on the same inputs, for rows at the start, the middle and the end; of a backward "
        "pass, the gradient of q. Inputs are normal random numbers: real activations are harder for quantized "
        "kernels. A side with a cosine of 0.99 or below, or a mean relative error of 0.05 or above, is called wrong "
        "and never as fastest.",
    ),
)

_VERDICT = (
    f"The ratio of times, round by round, with Wilcoxon's interval at {CONFIDENCE:.0%} or more. Faster or slower: the "
    f"interval leaves out 1 and the difference is {SMALLEST:.0%} or more. The same: all of the interval is within "
    f"{CLOSE:.0%} of 1. Else it is unclear. All together is the geometric mean over the shapes, round by round."
)
