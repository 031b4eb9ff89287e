"""Shows the progress of a build: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from attnforge.cli.show import duration, size
from attnforge.cli.terminal import Terminal, one_line
from attnforge.model.events import (
    Downloaded,
    Downloading,
    Event,
    Finished,
    GraphReceived,
    JobFinished,
    JobRetried,
    JobStarted,
    Message,
    Observer,
    PairFinished,
    Progress,
    Rehearsed,
    StageFinished,
    StageStarted,
    UnitFinished,
)

if TYPE_CHECKING:
    from rich.console import RenderableType


@contextmanager
def observer(out: Terminal, *, plain: bool) -> Iterator[Observer]:
    """Yield an observer that shows events on ``out``."""
    if plain or not out.isatty():
        yield PlainDisplay(out)
        return
    with LiveDisplay(out) as display:
        yield display


def write_line(document: Mapping[str, Any], out: Terminal) -> None:
    """Write a document of ``--json`` as one line and flush it: a program may be waiting."""
    out.json(document, indent=None)


def lines_of(event: Event) -> tuple[str, ...]:
    """Return an event as lines: none where only the live display shows it."""
    if isinstance(event, Finished):
        return event.wheel, event.report, f"done in {duration(event.seconds)}"
    line = _line_of(event)
    return (line,) if line else ()


def _line_of(event: Event) -> str:
    match event:
        case StageStarted():
            return f"{event.stage}: {event.detail} …"
        case StageFinished():
            return f"{event.stage}: done in {duration(event.seconds)}"
        case GraphReceived():
            merged = f" ({event.merged} more merged into these)" if event.merged else ""
            return (
                f"compile: {event.compile} to compile{merged}, {event.reused} available, {event.empty} left out; "
                f"about {duration(event.predicted_seconds)}"
            )
        case Rehearsed():
            if event.ok:
                return f"rehearsal: link and packaging work, {duration(event.seconds)}"
            return f"warning: link and packaging can't be tried before the kernels are compiled: {event.why}"
        case JobFinished():
            how = "stopped" if event.stopped else "FAILED"
            ended = f"compile: {_job(event)} {how} after {duration(event.seconds)}, {size(event.peak_bytes)}"
            return "" if event.ok else ended
        case UnitFinished():
            if event.how != "compiled":
                return f"compile: {event.name} {event.how}"
            return f"compile: {event.name} compiled, {duration(event.cpu_seconds)} of CPU, {size(event.peak_bytes)}"
        case PairFinished():
            return f"modules: PyTorch {event.torch}, Python {event.python} made in {duration(event.seconds)}"
        case JobRetried():
            return f"compile: {_job(event)} {event.reason}; again with {size(event.reserved_bytes)} reserved"
        case Downloaded():
            kept = f" ({size(event.kept_bytes)} of it fetched before)" if event.kept_bytes else ""
            return f"toolchain: {event.name} fetched, {size(event.size_bytes)}{kept}"
        case Message():
            return event.text if event.level == "info" else f"{event.level}: {event.text}"
        case _:
            return ""


def _job(event: JobStarted | JobFinished | JobRetried) -> str:
    return f"{event.name} {event.step}".rstrip()


class PlainDisplay:
    """Writes a line for each event that matters."""

    def __init__(self, out: Terminal) -> None:
        self._out = out

    def __call__(self, event: Event) -> None:
        """Show an event."""
        self._out.lines(lines_of(event))


class LiveDisplay:
    """Redraws slots, progress and memory in place, and leaves finished stages above."""

    def __init__(self, out: Terminal) -> None:
        from rich.console import Console
        from rich.live import Live

        self.console = Console(file=out.raw)
        self._stage = ""
        self._progress: Progress | None = None
        self._fetched: Downloading | None = None
        self._available = 0  # objects that need no compile: a bar that begins at 95 % says nothing
        self._slots: dict[int, tuple[JobStarted, float]] = {}
        # Refreshed only here: a separate thread that refreshes while a line is printed loses lines. Events come one at
        # a time, Progress each second.
        self._live = Live(console=self.console, get_renderable=self.render, auto_refresh=False, transient=True)

    def __enter__(self) -> LiveDisplay:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case StageStarted():
                self._stage = one_line(f"{event.stage}: {event.detail}")
            case StageFinished():
                self._stage = ""
                self._slots.clear()
                self._progress = self._fetched = None
                self._available = 0
            case GraphReceived():
                self._available += event.empty + event.merged + event.reused
            case JobStarted():
                self._slots[event.slot] = (event, time.monotonic())
            case JobFinished():
                self._slots.pop(event.slot, None)
            case Progress():
                self._progress = event
            case Downloading():
                self._fetched = event
        for line in () if isinstance(event, StageStarted) else lines_of(event):
            self.console.print(one_line(line), highlight=False, markup=False, emoji=False)
        self._live.refresh()

    def render(self) -> RenderableType:
        """Return what to draw now."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        parts: list[RenderableType] = [Text(self._stage, style="bold")] if self._stage else []
        if self._fetched is not None:
            row = Table.grid(padding=(0, 2))
            done, total = self._fetched.done_bytes, self._fetched.total_bytes
            row.add_row(ProgressBar(total=max(total, 1), completed=done, width=32), f"{size(done)} of {size(total)}")
            parts.append(row)
        if self._progress is not None:
            seen = self._progress
            head = Table.grid(padding=(0, 2))
            head.add_row(
                ProgressBar(
                    total=max(seen.total - self._available, 1), completed=seen.done - self._available, width=32
                ),
                f"{seen.done - self._available} of {seen.total - self._available}",
                f"{size(seen.used_bytes)} of {size(seen.budget_bytes)} used",
                f"{duration(seen.remaining_seconds)} left",
            )
            parts.append(head)
        if self._slots:
            table = Table.grid(padding=(0, 2))
            for slot, (job, began) in sorted(self._slots.items()):
                passed = f"{duration(time.monotonic() - began)} of about {duration(job.predicted_seconds)}"
                table.add_row(f"  {slot + 1}", Text(one_line(_job(job))), passed, size(job.predicted_bytes))
            parts.append(table)
        return Group(*parts)
