"""What a build hands to its stages: a job, and the wheel that an earlier build finished."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from attnforge.errors import HostError
from attnforge.model.events import Event, Message
from attnforge.model.host import Host
from attnforge.model.plan import Resolution
from attnforge.model.request import Request
from attnforge.recipes.catalogue import find_recipe
from attnforge.workflow import building
from attnforge.workflow import machine as machines
from attnforge.workflow.artifacts import Packed
from attnforge.workflow.before import finished_wheels
from attnforge.workflow.job import Context, Job, Limits
from attnforge.workflow.machine import Machine
from attnforge.workflow.pipeline import PLAIN, UNIVERSAL, Kind
from attnforge.workflow.planning import Planned
from attnforge.workflow.sources.kinds import Located, Sdist


class RanError(Exception):
    """The stages were to run."""

    def __init__(self, kind: Kind, context: Context) -> None:
        super().__init__()
        self.kind = kind
        self.context = context


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, make_host: Callable[..., Host], tmp_path: Path) -> Machine:
    def run(kind: Kind, context: Context) -> None:
        raise RanError(kind, context)

    monkeypatch.setattr(machines, "probe", lambda *_: make_host())
    monkeypatch.setattr(building, "run", run)
    return Machine({"HOME": str(tmp_path), "ATTNFORGE_CACHE": str(tmp_path / "cache")})


def planned(resolution: Resolution) -> Planned:
    plan = resolution.plan
    located = Located(find_recipe(plan.package), plan.version, Sdist(plan.source, plan.package, plan.version))
    return Planned(Request(package=plan.package, jobs=3, memory=10**10), located, resolution)


def build(machine: Machine, resolution: Resolution, folder: Path) -> tuple[RanError, list[Event]]:
    events: list[Event] = []
    with pytest.raises(RanError) as caught:
        building.build(machine, planned(resolution), folder / "dist", events.append)
    return caught.value, events


def finished(machine: Machine, resolution: Resolution) -> Path:
    """Write the wheel of an earlier build, which has no report."""
    folder = finished_wheels(machine.folders.builds / resolution.plan.slug)
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "it.whl", "w") as archive:
        archive.writestr("it.py", "x = 1")
    return folder / "it.whl"


def test_a_build_without_an_earlier_one(
    machine: Machine, make_resolution: Callable[..., Resolution], tmp_path: Path
) -> None:
    resolution = make_resolution()
    ran, events = build(machine, resolution, tmp_path)
    job = ran.context.job
    assert ran.kind is PLAIN
    assert isinstance(job, Job)
    assert (job.plan, job.toolchain, job.limits) == (resolution.plan, resolution.plan.toolchain, Limits(3, 10**10))
    assert (ran.context.of(Resolution), ran.context.find(Packed)) == (resolution, None)
    assert events == [Message("info", f"log: {job.folder / 'log.txt'}")]


def test_the_first_pair_of_a_universal_wheel_has_the_kernels(
    machine: Machine, make_resolution: Callable[..., Resolution], tmp_path: Path
) -> None:
    resolution = make_resolution(universal=True, torch="2.11-2.13", python="3.12")
    ran, _ = build(machine, resolution, tmp_path)
    assert ran.kind is UNIVERSAL
    assert ran.context.job.pairs == resolution.plan.pairs
    assert ran.context.job.further == resolution.plan.pairs[1:]


def test_a_finished_wheel_is_handed_on_and_needs_no_space(
    machine: Machine, make_resolution: Callable[..., Resolution], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolution = make_resolution()
    wheel = finished(machine, resolution)
    monkeypatch.setattr(building, "check_free_space", pytest.fail)
    ran, _ = build(machine, resolution, tmp_path)
    assert ran.context.of(Packed).wheel == wheel


def test_a_damaged_wheel_is_made_again(
    machine: Machine, make_resolution: Callable[..., Resolution], tmp_path: Path
) -> None:
    resolution = make_resolution()
    wheel = finished(machine, resolution)
    wheel.write_bytes(wheel.read_bytes()[:-10])
    ran, events = build(machine, resolution, tmp_path)
    assert ran.context.find(Packed) is None
    told = "the finished wheel of an earlier build is damaged (it.whl); it is made again"
    assert Message("warning", told) in events


def test_a_disk_that_refuses_is_the_environments_fault(
    machine: Machine, make_resolution: Callable[..., Resolution], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device", "/cache/log")

    monkeypatch.setattr(building, "run", refuse)
    with pytest.raises(HostError, match="No space left on device"):
        building.build(machine, planned(make_resolution()), tmp_path / "dist")
