"""Reports what a build does: events, its log, lines for upstream's log, and counts."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Sequence
from typing import IO

from attnforge.compile.reuse.objects import Cost
from attnforge.compile.run.executor import Ended
from attnforge.compile.run.summary import How, Summary, Tally
from attnforge.compile.run.work import Batch, Product, product
from attnforge.model.events import Event, Observer
from attnforge.model.graph import Unit
from attnforge.process import redact


class Reporter:
    """Reports and counts what is done. For many threads at once.

    One lock lets events and the log come one at a time, whatever thread they come from. Another one protects the
    counts, the products and each call's ``done``. None of the two is held while the other is taken.
    """

    def __init__(self, observe: Observer, log: IO[str]) -> None:
        """Pass events to ``observe``, and write what compilers print into ``log``."""
        self._observe = observe
        self._log = log
        # An observer may report something itself.
        self._speaking = threading.RLock()
        self._counting = threading.Lock()
        self._tally = Tally()
        self._products: dict[str, Product] = {}
        self._total = 0

    def emit(self, event: Event) -> None:
        """Pass an event on."""
        with self._speaking:
            self._observe(event)

    def log(self, unit: Unit, label: str, argv: Sequence[str], output: str, ended: Ended) -> None:
        """Write a command, what it printed and how it ended into the log."""
        with self._speaking:
            self._log.write(f"$ cd {shlex.quote(unit.cwd)}\n$ {redact(shlex.join(argv))}\n{output}")
            self._log.write("" if not output or output.endswith("\n") else "\n")
            self._log.write(
                f"# {unit.name}{' ' if label else ''}{label}: exit code {ended.code}, {ended.seconds:.1f} s,"
                f" {ended.cpu_seconds:.1f} s of CPU, {ended.peak_bytes / 1e9:.2f} GB\n"
            )
            self._log.flush()

    def expect(self, batch: Batch) -> None:
        """Count the objects that a call asks for."""
        with self._counting:
            self._total += len(batch.graph.units)

    def made(self, unit: Unit, batch: Batch, how: How, cost: Cost, reads: frozenset[str] | None = None) -> None:
        """Count an object that is in place, and say so in upstream's log."""
        with self._counting:
            self._tally.unit(unit, how, cost)
            self._products[unit.output] = product(unit, batch, how, reads)
            batch.done += 1
            number = batch.done
        detail = f"{cost.seconds:.1f} s, {cost.peak_bytes / 1e9:.1f} GB" if how == "compiled" else how
        batch.say(f"[{number}/{len(batch.graph.units)}] {unit.name} ({detail})")

    def step(self, tool: str, cpu_seconds: float, *, cached: bool = False, shared: bool = False) -> None:
        """Count a program that ran, or one that did not have to."""
        with self._counting:
            self._tally.step(tool, cpu_seconds, cached=cached, shared=shared)

    def forget(self, batch: Batch) -> None:
        """Count the objects of a call no longer: they are made in another way."""
        outputs = {unit.output for unit in batch.graph.units}
        with self._counting:
            self._tally.forget(outputs)
            self._total -= len(batch.graph.units)
            for output in outputs:
                self._products.pop(output, None)

    @property
    def done(self) -> int:
        """How many objects are in place."""
        with self._counting:
            return self._tally.done

    @property
    def total(self) -> int:
        """How many objects were asked for."""
        return self._total

    @property
    def products(self) -> tuple[Product, ...]:
        """The objects that are in place, sorted by call and path."""
        with self._counting:
            return tuple(sorted(self._products.values(), key=lambda product: (product.call, product.output)))

    def summary(self, peak_bytes: int, wall_seconds: float) -> Summary:
        """Return what was counted, with the most bytes that compilers held at once and the seconds since the start."""
        with self._counting:
            return self._tally.summary(peak_bytes, wall_seconds)
