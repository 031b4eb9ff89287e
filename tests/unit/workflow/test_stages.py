"""One stage: its events, its line in the log, and what it hands on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from attnforge.model.events import Message, StageFinished, StageStarted
from attnforge.model.plan import BuildPlan
from attnforge.model.request import Request
from attnforge.workflow.artifacts import Packed, SourceTree
from attnforge.workflow.job import Context, Limits
from attnforge.workflow.stages import Stage, follow
from standins.jobs import Bench

TREE = SourceTree(Path("/here"))


@pytest.fixture
def bench(tmp_path: Path, make_plan: Callable[..., BuildPlan]) -> Bench:
    return Bench(tmp_path, make_plan())


def test_a_stage_is_reported_and_logged(bench: Bench) -> None:
    made = Stage("source", lambda _: TREE, lambda so_far: so_far.job.plan.package).run(Context(bench.job()))
    started, finished = bench.events
    assert started == StageStarted("source", "flash-attn")
    assert isinstance(finished, StageFinished)
    assert (finished.stage, finished.detail) == ("source", "flash-attn")
    assert finished.seconds >= 0
    assert bench.log.getvalue() == "== source: flash-attn\n"
    assert made.of(SourceTree) is TREE


def test_a_check_has_no_events_and_makes_nothing(bench: Bench) -> None:
    context = Context(bench.job())
    assert Stage("check", lambda _: None).run(context) is context
    assert (bench.events, bench.log.getvalue()) == ([], "")


def test_a_stage_gets_what_those_before_it_made(bench: Bench) -> None:
    stages = (
        Stage("one", lambda _: TREE),
        Stage("two", lambda so_far: Packed(so_far.of(SourceTree).folder / "it.whl")),
    )
    assert follow(stages, Context(bench.job())).of(Packed).wheel == Path("/here/it.whl")


def test_a_context_never_changes(bench: Bench) -> None:
    context = Context(bench.job())
    more = context.having(TREE, Packed(Path("a.whl")))
    assert context.find(SourceTree) is None
    assert more.having(Packed(Path("b.whl"))).of(Packed).wheel.name == "b.whl"
    assert more.of(Packed).wheel.name == "a.whl"
    with pytest.raises(TypeError):
        more.made[SourceTree] = None  # type: ignore[index]
    with pytest.raises(LookupError, match="no stage has made a SourceTree yet"):
        context.of(SourceTree)


def test_a_job_reports_lines(bench: Bench) -> None:
    job = bench.job()
    job.tell("one")
    job.warn("two")
    assert bench.events == [Message("info", "one"), Message("warning", "two")]
    assert job.generated.is_dir()


def test_limits_are_what_is_asked_for_or_what_the_machine_has(bench: Bench) -> None:
    asked = Limits.of(bench.job().machine, Request(package="x", jobs=3, memory=5_000_000_000))
    assert asked == Limits(3, 5_000_000_000)
    assert asked.divided(2) == Limits(1, 2_500_000_000)
    assert asked.divided(8).slots == 1
