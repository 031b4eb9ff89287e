"""What surrounds upstream's build: the plan that it runs for, space, and what its wheel may hold."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from attnforge.compile.run.summary import Tally
from attnforge.errors import HostError, WheelError
from attnforge.files import file_sha256
from attnforge.model.plan import BuildPlan
from attnforge.workflow import making
from attnforge.workflow.artifacts import Compiled, CompiledBefore
from attnforge.workflow.job import Context
from attnforge.workflow.making import check_free_space, check_origin, first_plan
from attnforge.workflow.space import Need
from standins.jobs import Bench


@pytest.fixture
def bench(tmp_path: Path, make_plan: Callable[..., BuildPlan]) -> Bench:
    return Bench(tmp_path, make_plan())


def test_a_plain_plan_is_its_own(bench: Bench) -> None:
    assert first_plan(bench.plan) is bench.plan


def test_the_first_pair_of_a_universal_wheel_keeps_how_kernels_are_compiled(
    make_plan: Callable[..., BuildPlan],
) -> None:
    plan = make_plan(universal=True, torch="2.11,2.12", python="3.12")
    first = first_plan(plan)
    assert (first.target.torch, first.target.python) == (plan.pairs[0].torch, plan.pairs[0].python)
    assert (first.groups, first.shared, first.parts) == (plan.groups, plan.shared, plan.parts)


def compiled(folder: Path, *files: tuple[str, bytes], tags: str = "cp312-cp312-linux_x86_64") -> Compiled:
    wheel = folder / f"m-1.0-{tags}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in files:
            archive.writestr(name, data)
    return Compiled(wheel, Tally().summary(0, 0.0), (), frozenset())


def test_code_that_was_there_before_is_refused(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "old.so").write_bytes(b"\x7fELF old")
    before = CompiledBefore({file_sha256(tmp_path / "old.so"): "old.so"})
    made = compiled(tmp_path, ("m/old.so", b"\x7fELF old"))
    with pytest.raises(WheelError, match="holds code that was compiled before this build"):
        check_origin(Context(bench.job()).having(made, before))
    check_origin(Context(bench.job()).having(made, CompiledBefore({})))


def test_a_wheel_without_compiled_code_is_refused(bench: Bench, tmp_path: Path) -> None:
    made = compiled(tmp_path, ("m/__init__.py", b""), tags="py3-none-any")
    with pytest.raises(WheelError, match="compiled nothing"):
        check_origin(Context(bench.job()).having(made, CompiledBefore({})))


def test_objects_that_are_there_need_no_space(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Need, ...]] = []
    monkeypatch.setattr(making, "check_space", asked.append)
    job = bench.job()
    check_free_space(job)
    (job.folder / "objects").mkdir(parents=True)
    (job.folder / "objects" / "a.o").write_bytes(bytes(1000))
    check_free_space(job)
    (before, *_), (after, *_) = asked
    assert before.size - after.size == 1000


def test_a_full_disk_is_found_before_anything_is_compiled(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnforge.files.shutil.disk_usage", lambda _: type("Usage", (), {"free": 0}))
    with pytest.raises(HostError, match="no space left"):
        check_free_space(bench.job())
