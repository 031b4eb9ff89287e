"""The list of stages: which kinds of wheels take which, and what a finished wheel skips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from attnforge.errors import BuildError, WheelError
from attnforge.model.audit import AuditReport
from attnforge.model.plan import BuildPlan
from attnforge.workflow import pipeline, verdict
from attnforge.workflow.artifacts import Delivered, Packed
from attnforge.workflow.job import Context
from attnforge.workflow.pipeline import EXTENSION, PLAIN, PURE, UNIVERSAL, UNIVERSAL_OF_ONE_PAIR, Kind, kind_of, run
from attnforge.workflow.results import Built
from attnforge.workflow.stages import Stage
from standins.jobs import Bench


@pytest.fixture
def bench(tmp_path: Path, make_plan: Callable[..., BuildPlan]) -> Bench:
    return Bench(tmp_path, make_plan())


def events_of(kind: Kind) -> list[str]:
    return [stage.name for stage in kind.stages if stage.detail is not None]


@pytest.mark.parametrize(
    ("kind", "stages"),
    [
        (PURE, "source environment compile package audit"),
        (PLAIN, "source environment toolchain compile package audit"),
        (UNIVERSAL, "source environment toolchain environments compile library modules package import audit"),
        (UNIVERSAL_OF_ONE_PAIR, "source environment toolchain environments compile library package import audit"),
        (EXTENSION, "source look toolchain environments modules package import audit"),
    ],
)
def test_the_stages_of_each_kind(kind: Kind, stages: str) -> None:
    assert events_of(kind) == stages.split()


def test_every_kind_judges_a_wheel_before_it_delivers_it() -> None:
    for kind in (PURE, PLAIN, UNIVERSAL, UNIVERSAL_OF_ONE_PAIR, EXTENSION):
        judged = [stage.work in (verdict.discard_bad, verdict.refuse_bad) for stage in kind.finish]
        assert judged == [True, False, False]
        assert (kind.audit, kind.finish[1]) == (pipeline.AUDIT, pipeline.DELIVER)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, PLAIN),
        ({"universal": True, "torch": "2.11,2.12", "python": "3.12"}, UNIVERSAL),
        ({"universal": True, "torch": "2.11", "python": "3.12"}, UNIVERSAL_OF_ONE_PAIR),
    ],
)
def test_the_plan_says_which_kind_it_is(
    make_plan: Callable[..., BuildPlan], changes: dict[str, object], kind: Kind
) -> None:
    assert kind_of(make_plan(**changes)) is kind


def test_a_plan_that_compiles_nothing_is_pure(make_plan: Callable[..., BuildPlan]) -> None:
    plan = make_plan()
    pure = plan.model_copy(update={"toolchain": plan.toolchain.model_copy(update={"origin": "none"})})
    assert not pure.is_compiled
    assert kind_of(pure) is PURE


def test_a_stage_out_of_order_says_what_is_missing(bench: Bench) -> None:
    """Each but those that need only the job, which these can't finish here."""
    job = bench.job()
    stages = {stage for kind in (PURE, PLAIN, UNIVERSAL, EXTENSION) for stage in kind.stages}
    for stage in stages - {pipeline.SOURCE, pipeline.TOOLCHAIN, pipeline.SPACE}:
        with pytest.raises(LookupError, match="no stage has made a"):
            stage.work(Context(job))


# --- the runner, with stages that make nothing


class Fakes:
    """A kind of wheel whose stages only note that they ran; the audit finds bad what ``bad`` names."""

    def __init__(self, *bad: str) -> None:
        self.ran: list[str] = []
        self.bad = bad

    def kind(self) -> Kind:
        return Kind(
            provide=(self._stage("provide"),),
            make=(self._stage("make", lambda _: Packed(Path("made.whl"))),),
            finish=(
                self._stage("refuse", verdict.refuse_bad),
                self._stage("deliver", lambda so_far: Delivered(so_far.of(Packed).wheel)),
                self._stage("report", self._report),
            ),
            audit=self._stage("audit", self._audit),
            compiles=False,
        )

    def _stage(self, name: str, work: Callable[[Context], object] = lambda _: None) -> Stage:
        def noted(context: Context) -> object:
            self.ran.append(name)
            return work(context)

        return Stage(name, noted, lambda _: "")

    def _audit(self, context: Context) -> AuditReport:
        wheel = context.of(Packed).wheel.name
        found = "bad" if wheel in self.bad else "good"
        return AuditReport(wheel=wheel, modules=(), platform_tag="", findings=(), verdict=found)

    def _report(self, context: Context) -> Built:
        return Built(context.of(Delivered).wheel, Path("report"), context.of(AuditReport), None, 0.0)


def test_all_stages_run_in_order(bench: Bench) -> None:
    fakes = Fakes()
    built = run(fakes.kind(), Context(bench.job()))
    assert fakes.ran == ["provide", "make", "audit", "refuse", "deliver", "report"]
    assert built.wheel == Path("made.whl")


def test_a_finished_wheel_is_not_made_again(bench: Bench) -> None:
    fakes = Fakes()
    built = run(fakes.kind(), Context(bench.job()).having(Packed(Path("earlier.whl"))))
    assert fakes.ran == ["provide", "audit", "refuse", "deliver", "report"]
    assert built.wheel == Path("earlier.whl")


def test_a_finished_wheel_that_is_bad_is_made_again(bench: Bench) -> None:
    fakes = Fakes("earlier.whl")
    built = run(fakes.kind(), Context(bench.job()).having(Packed(Path("earlier.whl"))))
    assert fakes.ran == ["provide", "audit", "make", "audit", "refuse", "deliver", "report"]
    assert built.wheel == Path("made.whl")
    assert bench.said == ["the audit finds the wheel of an earlier build bad (earlier.whl); it is made again"]


def test_a_bad_wheel_is_not_delivered(bench: Bench) -> None:
    fakes = Fakes("made.whl")
    with pytest.raises(WheelError, match="is bad and was not delivered"):
        run(fakes.kind(), Context(bench.job()))
    assert "deliver" not in fakes.ran


def test_a_stage_that_fails_ends_the_run_and_has_no_end(bench: Bench) -> None:
    def fail(_: Context) -> None:
        raise BuildError("no")

    kind = replace(Fakes().kind(), make=(Stage("make", fail, lambda _: "it"),))
    with pytest.raises(BuildError):
        run(kind, Context(bench.job()))
    assert bench.stages == ["> provide", "< provide", "> make"]
