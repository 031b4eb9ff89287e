"""Events and log come one at a time; objects are counted as they are placed."""

from __future__ import annotations

import io
import threading
from pathlib import Path

from build_fakes import GB, call, unit

from attnforge.compile.reuse.objects import Cost
from attnforge.compile.run.executor import Ended
from attnforge.compile.run.reporter import Reporter
from attnforge.model.events import Event, Message

COST = Cost(2.0, 1.5, GB)


def test_objects_are_counted_and_reported_by_call(tmp_path: Path) -> None:
    said: list[str] = []
    batch = call(unit(tmp_path, "b"), unit(tmp_path, "a"), said=said)
    reporter = Reporter(print, io.StringIO())
    reporter.expect(batch)
    for number, how in enumerate(("compiled", "cached")):
        reporter.made(batch.graph.units[number], batch, how, COST)  # type: ignore[arg-type]
    assert said == ["[1/2] b.cc (2.0 s, 1.0 GB)", "[2/2] a.cc (cached)"]
    assert (reporter.done, reporter.total) == (2, 2)
    assert [Path(product.output).name for product in reporter.products] == ["a.o", "b.o"]
    found = reporter.summary(7, 3.0)
    assert (found.compiled, found.cached, found.peak_bytes, found.wall_seconds) == (1, 1, GB, 3.0)


def test_a_call_that_is_given_up_counts_no_longer(tmp_path: Path) -> None:
    reporter = Reporter(print, io.StringIO())
    given_up, kept = call(unit(tmp_path, "a")), call(unit(tmp_path, "b"))
    for batch in (given_up, kept):
        reporter.expect(batch)
        reporter.made(batch.graph.units[0], batch, "compiled", COST)
    reporter.forget(given_up)
    assert (reporter.done, reporter.total, len(reporter.products)) == (1, 1, 1)


def test_programs_are_counted_by_tool() -> None:
    reporter = Reporter(print, io.StringIO())
    reporter.step("cicc", 2.0)
    reporter.step("cicc", 0.0, cached=True)
    (count,) = reporter.summary(0, 0.0).steps
    assert (count.tool, count.ran, count.cached, count.cpu_seconds) == ("cicc", 1, 1, 2.0)


def test_the_log_has_the_command_what_it_printed_and_how_it_ended(tmp_path: Path) -> None:
    log = io.StringIO()
    ended = Ended(1, 2.0, 1.5, GB, stopped=False)
    Reporter(print, log).log(unit(tmp_path), "cicc sm_90", ("nvcc", "a b"), "no", ended)
    lines = log.getvalue().splitlines()
    assert lines[1:3] == ["$ nvcc 'a b'", "no"]
    assert lines[3] == "# a.cc cicc sm_90: exit code 1, 2.0 s, 1.5 s of CPU, 1.00 GB"


def test_one_event_at_a_time_is_passed_on_and_an_observer_may_report_itself() -> None:
    inside: list[int] = []
    seen: list[str] = []

    def observe(event: Event) -> None:
        assert isinstance(event, Message)
        inside.append(1)
        seen.append(event.text)
        if event.text == "outer":
            inside.pop()
            reporter.emit(Message("info", "inner"))
            return
        assert len(inside) == 1
        inside.pop()

    reporter = Reporter(observe, io.StringIO())
    threads = [threading.Thread(target=reporter.emit, args=(Message("info", "outer"),)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == ["outer", "inner"] * 20
