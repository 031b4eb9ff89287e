"""What follows a step: the cache, shared PTX, the parts of a unit, or a program."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from build_fakes import SECOND, Costs, call, unit

from attnforge.compile.nvcc.parts import NotWholeError
from attnforge.compile.nvcc.steps import Step, Tool
from attnforge.compile.reuse.reuse import Reuse
from attnforge.compile.reuse.shared import UnprovenError
from attnforge.compile.run.chain import Chain
from attnforge.compile.run.queue import Queue
from attnforge.compile.run.reporter import Reporter
from attnforge.compile.run.work import Task, Work, begin
from attnforge.compile.seat.server import FirstError
from attnforge.model.events import Event, Message
from attnforge.model.graph import InParts, Language, Unit

STEPS = {
    "cicc sm_80": Step("cicc sm_80", Tool.CICC, ("cicc",)),
    "cicc sm_90": Step("cicc sm_90", Tool.CICC, ("cicc",), needs=("cicc sm_80",)),
    "ptxas sm_90": Step("ptxas sm_90", Tool.PTXAS, ("ptxas",), needs=("cicc sm_90",)),
}


@dataclass
class Outputs:
    """A cache that holds the outputs of some steps; shared and joined ones are made unless there is an error."""

    cached: frozenset[str] = frozenset()
    error: Exception | None = None
    asked: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    def find_step(self, work: Work, step: Step) -> bool:
        self.asked.append(step.label)
        return step.label in self.cached

    def keep_step(self, work: Work, step: Step) -> None:
        self.kept.append(step.label)

    def share_step(self, work: Work, step: Step) -> None:
        if self.error:
            raise self.error

    join_step = share_step


@dataclass
class Build:
    """One unit whose first step has run, and the queue that holds the others behind a job that runs."""

    folder: Path
    outputs: Outputs
    changes: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one = unit(self.folder, "tiny", Language.CUDA, **self.changes)
        self.work: Work = begin(one, call(one), self.folder, self.folder)
        self.work.steps = dict(STEPS)
        self.events: list[Event] = []
        self.finished: list[Work] = []
        self.seen: list[str] = []
        self.queue = Queue(1, 10**12, Costs(), FirstError(), lambda task: True)
        self.queue.extend(Task(self.work, label, SECOND) for label in STEPS if label != "cicc sm_80")
        self.reporter = Reporter(self.events.append, io.StringIO())
        watch: Callable[[Work, Step], object] = lambda work, step: self.seen.append(step.label)  # noqa: E731
        self.chain = Chain(self.queue, cast(Reuse, self.outputs), self.reporter, watch, self.finished.append)

    def left(self) -> list[str]:
        return [task.label for task in self.queue.tasks]


SHARES: dict[str, object] = {"shares": (("sm_90", "sm_80"),)}


def test_what_is_in_the_cache_is_not_run(tmp_path: Path) -> None:
    build = Build(tmp_path, Outputs(frozenset({"cicc sm_90", "ptxas sm_90"})))
    build.chain.advance(build.work, STEPS["cicc sm_80"])
    assert build.left() == []
    assert build.finished == [build.work]
    assert build.seen == build.outputs.kept == list(STEPS)
    counts = {count.tool: (count.ran, count.cached) for count in build.reporter.summary(0, 0.0).steps}
    assert counts == {"cicc": (0, 1), "ptxas": (0, 1)}


def test_a_program_runs_where_nothing_is_known(tmp_path: Path) -> None:
    build = Build(tmp_path, Outputs())
    build.chain.advance(build.work, STEPS["cicc sm_80"])
    assert build.left() == ["cicc sm_90", "ptxas sm_90"]
    assert not build.finished
    assert build.outputs.asked == ["cicc sm_90"]


def test_a_step_is_looked_up_once(tmp_path: Path) -> None:
    build = Build(tmp_path, Outputs())
    for _ in range(2):
        build.chain.advance(build.work, STEPS["cicc sm_80"])
    assert build.outputs.asked == ["cicc sm_90"]


def test_shared_ptx_is_counted_and_what_follows_is_run(tmp_path: Path) -> None:
    build = Build(tmp_path, Outputs(), SHARES)
    build.chain.advance(build.work, STEPS["cicc sm_80"])
    assert build.left() == ["ptxas sm_90"]
    (count,) = build.reporter.summary(0, 0.0).steps
    assert (count.tool, count.shared) == ("cicc", 1)


@pytest.mark.parametrize(
    ("changes", "error", "why"),
    [
        (SHARES, UnprovenError("x"), "cicc sm_90 is run, its output is not proven (x)"),
        ({"parts": InParts("/i", ())}, NotWholeError("x"), "cicc sm_90 is run at once, its parts are not whole: x"),
    ],
)
def test_what_is_not_proven_or_whole_is_run_and_the_unit_goes_on_without(
    tmp_path: Path, changes: dict[str, object], error: Exception, why: str
) -> None:
    build = Build(tmp_path, Outputs(error=error), changes)
    build.chain.advance(build.work, STEPS["cicc sm_80"])
    assert build.left() == ["cicc sm_90", "ptxas sm_90"]
    assert build.events == [Message("info", f"tiny.cc: {why}")]
    changed: Unit = build.work.unit
    assert (changed.shares, changed.parts) == ((), None)


def test_a_unit_that_was_given_up_is_not_finished(tmp_path: Path) -> None:
    build = Build(tmp_path, Outputs(frozenset(STEPS)))
    build.work.given_up = True
    build.chain.advance(build.work, STEPS["cicc sm_80"])
    assert not build.finished
