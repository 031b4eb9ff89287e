"""Calls of ninja: what is answered when, with a rehearsal and without."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from build_fakes import GB, Costs, Programs, unit

from attnforge.compile.reuse.objects import ObjectStore
from attnforge.compile.reuse.reuse import Reuse
from attnforge.compile.run import calls
from attnforge.compile.run.calls import Calls
from attnforge.compile.run.placement import Placement
from attnforge.compile.run.places import Places
from attnforge.compile.run.queue import Queue
from attnforge.compile.run.reporter import Reporter
from attnforge.compile.run.units import Units
from attnforge.compile.run.work import Task
from attnforge.compile.seat.server import FirstError
from attnforge.errors import BuildError
from attnforge.model.events import Event, GraphReceived
from attnforge.model.graph import CompileGraph, GeneratedFile, Language, Pass, Unit

WAIT_SECONDS = 20.0
PATH = {"PATH": "/usr/bin:/bin"}


class Build:
    """Calls whose units a function makes. Kernels wait until ``kernels`` is set."""

    def __init__(self, folder: Path, *passes: Pass) -> None:
        self.folder = folder
        self.events: list[Event] = []
        self.said: list[str] = []
        self.made: list[str] = []
        self.errors = FirstError()
        self.kernels = threading.Event()
        self.reporter = Reporter(self.events.append, io.StringIO())
        self.queue = Queue(3, 100 * GB, Costs(), self.errors, self._perform)
        places, reuse = Places.make(folder / "plan", folder / "tmp"), Reuse()
        store = ObjectStore(folder / "objects")
        self.placement = Placement(store, reuse, Programs().executor, places.work, self.reporter)
        units = Units(places, Costs(), reuse.prefixes)
        self.calls = Calls(passes, Costs(), self.queue, units, self.placement, self.reporter)
        self.act: Callable[[Task], bool] = self.make

    def _perform(self, task: Task) -> bool:
        if task.work.unit.language is Language.CUDA:
            while not self.kernels.wait(0.01) and not task.work.given_up and not self.queue.is_ending:
                continue
        return not task.work.given_up and self.act(task)

    def make(self, task: Task) -> bool:
        work = task.work
        self.made.append(work.unit.name)
        assert self.placement.find(work) is None
        work.folder.mkdir(parents=True, exist_ok=True)
        work.made.write_text(work.unit.name)
        self.placement.keep(work)
        self.reporter.made(work.unit, work.batch, "compiled", work.spent)
        self.queue.made(work)
        return True

    def serve(self, *units: Unit, **environment: str) -> int:
        return self.calls.serve(CompileGraph(units), {**PATH, **environment}, self.said.append)

    @property
    def received(self) -> GraphReceived:
        return [event for event in self.events if isinstance(event, GraphReceived)][-1]


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    monkeypatch.setattr(calls, "LEAST_SECONDS", 1.0)
    return Build(tmp_path)


@pytest.fixture
def host(build: Build) -> Unit:
    return unit(build.folder, "host")


@pytest.fixture
def kernel(build: Build) -> Unit:
    return unit(build.folder, "kernel", Language.CUDA)


def text(one: Unit) -> str:
    return Path(one.output).read_text()


def test_a_call_is_answered_when_all_objects_are_there(build: Build, host: Unit, kernel: Unit) -> None:
    build.kernels.set()
    assert build.serve(host, kernel) == 0
    assert (text(host), text(kernel)) == ("host.cc", "kernel.cc")
    assert (build.received.units, build.received.compile, build.received.reused) == (2, 2, 0)
    assert not build.calls.rehearsed


def test_objects_of_an_earlier_call_are_used_again(build: Build, host: Unit) -> None:
    assert build.serve(host) + build.serve(host) == 0
    assert build.made == ["host.cc"]
    assert (build.received.compile, build.received.reused) == (0, 1)


def test_passes_change_the_graph_and_their_files_are_written(tmp_path: Path) -> None:
    file = GeneratedFile(str(tmp_path / "own.h"), "text")
    build = Build(tmp_path, lambda graph: graph.map(lambda unit: replace(unit, empty=True)).with_files(file))
    one = unit(tmp_path)
    assert build.serve(one) == 0
    assert (build.received.empty, text(one)) == (1, "object")
    assert Path(file.path).read_text() == "text"


def test_a_failure_answers_with_ninjas_exit_code(build: Build, host: Unit) -> None:
    def act(task: Task) -> bool:
        build.errors.keep(BuildError("no"))
        return False

    build.act = act
    assert build.serve(host) == 1


def test_a_rehearsal_is_answered_without_kernels_and_again_with_them(build: Build, host: Unit, kernel: Unit) -> None:
    build.calls.rehearse()
    assert build.serve(host, kernel) == 0
    assert (text(host), text(kernel)) == ("host.cc", "object")
    assert build.calls.rehearsed and not build.calls.performed
    build.calls.perform()
    build.kernels.set()
    assert build.serve(host, kernel) == 0
    assert text(kernel) == "kernel.cc"
    assert build.calls.performed
    assert sorted(build.made) == ["host.cc", "kernel.cc"]
    assert build.said[-1] == "[2/2] kernel.cc (0.0 s, 0.0 GB)"


def test_what_was_made_while_no_call_waited_is_said_in_the_next(build: Build, host: Unit, kernel: Unit) -> None:
    build.calls.rehearse()
    assert build.serve(host, kernel) == 0
    build.kernels.set()
    build.calls.drain()
    assert not any("kernel" in line for line in build.said)
    build.calls.perform()
    assert build.serve(host, kernel) == 0
    assert build.said[-1] == "[2/2] kernel.cc (0.0 s, 0.0 GB)"


def test_a_rehearsal_of_few_kernels_waits_for_them(
    build: Build, host: Unit, kernel: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "LEAST_SECONDS", 60.0)
    build.calls.rehearse()
    build.kernels.set()
    assert build.serve(host, kernel) == 0
    assert not build.calls.rehearsed
    assert text(kernel) == "kernel.cc"


def test_a_kernel_that_fails_in_a_rehearsal_fails_the_call_that_comes_again(
    build: Build, host: Unit, kernel: Unit
) -> None:
    build.calls.rehearse()
    assert build.serve(host, kernel) == 0
    build.act = lambda task: False
    build.errors.keep(BuildError("no"))
    build.calls.drain()
    build.calls.perform()
    assert build.serve(host, kernel) == 1


def test_a_graph_that_differs_after_the_rehearsal_is_made_from_scratch(build: Build, host: Unit, kernel: Unit) -> None:
    build.calls.rehearse()
    assert build.serve(host, kernel) == 0
    build.calls.perform()
    build.kernels.set()
    other = replace(kernel, argv=(*kernel.argv, "-DTIME=2"))
    assert build.serve(host, other) == 0
    assert text(kernel) == "kernel.cc"
    assert (build.reporter.total, build.reporter.done) == (2, 2)


def test_another_environment_is_another_call(build: Build, host: Unit, kernel: Unit) -> None:
    build.calls.rehearse()
    assert build.serve(host, kernel, CPATH="/a") == 0
    build.calls.perform()
    build.kernels.set()
    assert build.serve(host, kernel, CPATH="/b") == 0
    assert build.made.count("host.cc") == 2
