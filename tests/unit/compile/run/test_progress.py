"""Progress is reported while there are jobs."""

from __future__ import annotations

import io
import threading
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest
from build_fakes import GB, Costs, Programs, call, unit, whole, works

from attnforge.compile.run.progress import Ticker
from attnforge.compile.run.queue import Queue
from attnforge.compile.run.reporter import Reporter
from attnforge.compile.run.sampler import Sampler
from attnforge.compile.seat.server import FirstError
from attnforge.model.events import Event, Progress
from attnforge.schedule.scheduler import Scheduler


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


def test_predicting_all_again_takes_a_small_part_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, refreshed = [0.0], []
    queue = Queue(1, 10 * GB, Costs(), FirstError(), lambda task: True)

    def refresh() -> None:
        refreshed.append(now[0])
        now[0] += 0.1

    monkeypatch.setattr(queue, "refresh", refresh)
    ticker = Ticker(queue, Reporter(print, io.StringIO()), cast(Sampler, Programs()), lambda: now[0])
    for _ in range(12):
        ticker.tick()
        now[0] += 1.0
    assert len(refreshed) == 3
    assert all(later - earlier >= 0.1 / 0.02 for earlier, later in pairwise(refreshed))


def test_what_is_reserved_is_read_under_the_queues_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free: list[bool] = []

    def try_lock() -> None:
        free.append(queue.changed.acquire(blocking=False))
        if free[-1]:
            queue.changed.release()

    def reserved(scheduler: Scheduler) -> int:
        if scheduler is queue.scheduler:  # others are simulated
            other = threading.Thread(target=try_lock)
            other.start()
            other.join()
        return GB

    end = threading.Event()
    queue = Queue(1, 10 * GB, Costs(), FirstError(), lambda task: end.wait(20))
    batch = call(unit(tmp_path))
    queue.begin(batch, works(batch, tmp_path), [whole(work) for work in works(batch, tmp_path)])
    monkeypatch.setattr(Scheduler, "reserved_bytes", property(reserved))
    Ticker(queue, Reporter(print, io.StringIO()), cast(Sampler, Programs())).tick()
    end.set()
    queue.join()
    assert free and not any(free)


def test_the_thread_ends_when_it_is_closed() -> None:
    queue = Queue(1, GB, Costs(), FirstError(), lambda task: True)
    ticker = Ticker(queue, Reporter(print, io.StringIO()), cast(Sampler, Programs()))
    ticker.start()
    ticker.close()
    assert "progress" not in {thread.name for thread in threading.enumerate()}
