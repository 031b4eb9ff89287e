"""A benchmark as text: a table for each cell, what went wrong, the verdict."""

from __future__ import annotations

from attnforge.bench import words
from attnforge.cli.terminal import Terminal, one_line
from attnforge.model.benchmark import BenchReport, Cell, Result

# Columns where the output is a file or a pipe.
_WIDTH = 110


def show(report: BenchReport, out: Terminal) -> None:
    """Write a benchmark as text."""
    from rich.console import Console

    on_terminal = out.isatty()
    console = Console(file=out.raw, width=None if on_terminal else _WIDTH, highlight=False, emoji=False, markup=False)

    def say(line: str) -> None:
        console.print(one_line(line), soft_wrap=True)

    say(words.machine(report))
    say(words.yardsticks(report))
    name = max((len(side.name) for side in report.sides), default=0)
    for cell in report.cells:
        console.print()
        say(f"{cell.name}  {words.sizes(cell.shape)}" + ("; backward" if cell.backward else ""))
        console.print(_table(cell, name))
    for line in _ending(report):
        say(line)


def _table(cell: Cell, name: int) -> object:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", min_width=name + 2)
    limit = "memory" if words.is_by_memory(cell) else "matrix"
    for title, width in (
        ("time", 9), ("spread", 7), ("rate", 13), (f"of {limit}", 9), ("host", 8), ("cosine", 8), ("largest error", 13)
    ):  # fmt: skip
        table.add_column(title, min_width=width, justify="right", no_wrap=True)
    for result in cell.results:
        table.add_row(*map(one_line, _row(cell, result)))
    return table


def _row(cell: Cell, result: Result) -> tuple[str, ...]:
    mark = "* " if result == cell.fastest else "  "
    if result.status != "timed" or result.accuracy is None:
        return (mark + result.side, words.STATUSES[result.status])
    right = f"{result.accuracy.cosine:.6f}" if result.accuracy.right else "WRONG"
    return (
        mark + result.side,
        words.duration(result.ms),
        words.spread(result),
        words.rate(cell, result),
        words.share(cell, result),
        words.duration(result.host_us / 1e3),
        right,
        f"{result.accuracy.largest_error:.2g}",
    )


def _ending(report: BenchReport) -> list[str]:
    lines = [
        "",
        "* the fastest with correct results; spread: quartiles of the rounds; host: CPU time to issue a call",
    ]
    lines += ["", *words.notes(report)] if words.notes(report) else []
    lines += ["", *(f"WRONG: {text}" for text in words.wrong(report))] if words.wrong(report) else []
    held = report.against
    if held is None:
        return lines
    lines += ["", *(f"{said.cell}: {words.verdict(said, held.a, held.b)}" for said in held.cells)]
    return [
        *lines,
        words.verdict(held.overall, held.a, held.b) if held.overall else "no cell has times for both",
    ]
