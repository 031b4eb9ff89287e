"""Progress is reported while there are jobs."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import cast

from build_fakes import GB, Costs, Programs, call, unit, whole, works

from attnforge.compile.run.progress import Ticker
from attnforge.compile.run.queue import Queue
from attnforge.compile.run.reporter import Reporter
from attnforge.compile.run.sampler import Sampler
from attnforge.compile.seat.server import FirstError
from attnforge.model.events import Event, Progress


def test_progress_is_reported_while_there_are_jobs(tmp_path: Path) -> None:
    events: list[Event] = []
    end = threading.Event()
    reporter = Reporter(events.append, io.StringIO())
    queue = Queue(1, 10 * GB, Costs(), FirstError(), lambda task: end.wait(20))
    ticker = Ticker(queue, reporter, cast(Sampler, Programs()))
    ticker.tick()
    assert events == []
    batch = call(unit(tmp_path, "a"), unit(tmp_path, "b"))
    made = works(batch, tmp_path)
    reporter.expect(batch)
    queue.begin(batch, made, [whole(work) for work in made])
    ticker.tick()
    end.set()
    queue.join()
    (progress,) = events
    assert isinstance(progress, Progress)
    assert (progress.done, progress.total, progress.used_bytes) == (0, 2, 5)
    assert (progress.reserved_bytes, progress.budget_bytes) == (GB, 10 * GB)
    assert 1.0 < progress.remaining_seconds <= 2.0


def test_the_thread_ends_when_it_is_closed() -> None:
    queue = Queue(1, GB, Costs(), FirstError(), lambda task: True)
    ticker = Ticker(queue, Reporter(print, io.StringIO()), cast(Sampler, Programs()))
    ticker.start()
    ticker.close()
    assert "progress" not in {thread.name for thread in threading.enumerate()}
