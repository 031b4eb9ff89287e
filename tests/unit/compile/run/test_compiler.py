"""Jobs of units: objects that are made by one command, and what fails."""

from __future__ import annotations

import errno
import io
from dataclasses import replace
from pathlib import Path

import pytest
from build_fakes import GB, Programs, call, unit

from attnforge.compile.reuse.cache.notices import Notices
from attnforge.compile.reuse.objects import ObjectStore
from attnforge.compile.reuse.reuse import Reuse
from attnforge.compile.run.compiler import Compiler
from attnforge.compile.run.cost import CostModel
from attnforge.compile.run.executor import Run
from attnforge.compile.run.placement import Placement
from attnforge.compile.run.places import Places
from attnforge.compile.run.queue import Queue
from attnforge.compile.run.reporter import Reporter
from attnforge.compile.run.units import Units
from attnforge.compile.seat.server import FirstError
from attnforge.errors import BuildError, HostError
from attnforge.model.events import Event, JobFinished, JobRetried, JobStarted, Message, UnitFinished
from attnforge.model.graph import Language, Unit

KEY = "package 1 kernel"


class Build:
    """A compiler whose programs are functions; its queue performs jobs at once, in threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = Programs()
        self.events: list[Event] = []
        self.log = io.StringIO()
        self.errors = FirstError()
        self.costs = CostModel(folder / "costs.json")
        reporter = Reporter(self.events.append, self.log)
        places = Places.make(folder / "plan", folder / "tmp")
        executor, reuse = self.programs.executor, Reuse()
        self.queue = Queue(2, 10 * GB, self.costs, self.errors, lambda task: self.compiler.perform(task))
        self.units = Units(places, self.costs, reuse.prefixes)
        self.compiler = Compiler(
            places=places,
            executor=executor,
            queue=self.queue,
            units=self.units,
            placement=Placement(ObjectStore(folder / "objects"), reuse, executor, places.work, reporter),
            reuse=reuse,
            costs=self.costs,
            reporter=reporter,
            errors=self.errors,
            notices=Notices(lambda text: self.events.append(Message("warning", text))),
            watch=lambda work, step: None,
        )

    def make(self, *units: Unit) -> int:
        """Make the units of a call; return how many are left."""
        batch = call(*units)
        works = [self.units.begin(one, batch) for one in units]
        self.queue.begin(batch, works, [self.units.first_task(work) for work in works])
        with self.queue.changed:
            assert self.queue.changed.wait_for(lambda: not self.queue.tasks, 20)
        self.queue.join()
        return batch.left

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    def failing(self, code: int, printed: str = "", *, times: int = 99) -> None:
        left = [times]

        def act(run: Run) -> int:
            left[0] -= 1
            return code if left[0] >= 0 else 0

        self.programs.act, self.programs.printed = act, printed


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(tmp_path)


def test_an_object_is_made_beside_the_store_and_placed(build: Build) -> None:
    one = unit(build.folder, cost_key=KEY)
    assert build.make(one) == 0
    (run,) = build.programs.runs
    assert one.output not in run.argv
    assert Path(one.output).read_text() == "object"
    started, finished, made = build.events
    assert isinstance(started, JobStarted) and isinstance(finished, JobFinished) and isinstance(made, UnitFinished)
    assert (finished.ok, made.how, made.cpu_seconds) == (True, "compiled", 1.5)
    assert "exit code 0" in build.log.getvalue()
    learned = build.costs.measured(one)
    assert learned is not None and learned.seconds == 1.5


def test_a_stored_object_is_not_made_again(build: Build) -> None:
    one = unit(build.folder)
    assert build.make(one) + build.make(one) == 0
    assert len(build.programs.runs) == 1
    assert build.kinds()[-1] == "UnitFinished"


def test_a_failure_has_the_compilers_first_error_and_is_kept(build: Build) -> None:
    build.failing(1, "a.cc:1:1: error: no such thing")
    assert build.make(unit(build.folder)) == 1
    assert isinstance(build.errors.error, BuildError)
    assert "no such thing" in build.errors.error.what


def test_a_compiler_that_makes_no_object_fails(build: Build) -> None:
    build.programs.run = lambda run, started=int: Programs.run(  # type: ignore[method-assign]
        build.programs, replace(run, argv=("true",))
    )
    assert build.make(unit(build.folder)) == 1
    assert isinstance(build.errors.error, BuildError)
    assert "made no object" in build.errors.error.what


def test_a_killed_compiler_is_tried_again(build: Build) -> None:
    build.failing(-9, times=1)
    assert build.make(unit(build.folder)) == 0
    (retried,) = (event for event in build.events if isinstance(event, JobRetried))
    assert retried.reason == "killed (exit code -9)"
    assert build.errors.error is None


def test_a_compiler_that_is_killed_twice_is_short_of_memory(build: Build) -> None:
    build.failing(-9)
    assert build.make(unit(build.folder)) == 1
    assert isinstance(build.errors.error, BuildError)
    assert "killed twice" in build.errors.error.what


def test_what_a_pass_tried_falls_back_to_the_units_before(build: Build) -> None:
    parts = (unit(build.folder, "a"), unit(build.folder, "b"))
    merged = unit(build.folder, "merged", output=parts[0].output, fallback=parts)
    build.programs.act = lambda run: int(any("merged.cc" in word for word in run.argv))
    build.programs.printed = "merged.cc:1:1: error: redefinition"
    assert build.make(merged) == 0
    assert build.errors.error is None
    assert all(Path(one.output).exists() for one in parts)
    (message,) = (event for event in build.events if isinstance(event, Message))
    assert message.level == "warning"
    assert message.text.endswith("compiling a.cc, b.cc instead")


def test_a_full_disk_is_the_machines_fault(build: Build) -> None:
    def act(run: Run) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    build.programs.act = act
    assert build.make(unit(build.folder)) == 1
    assert isinstance(build.errors.error, HostError)


def test_our_own_fault_is_kept_as_it_is(build: Build) -> None:
    def act(run: Run) -> int:
        raise ZeroDivisionError

    build.programs.act = act
    assert build.make(unit(build.folder)) == 1
    assert isinstance(build.errors.error, ZeroDivisionError)


def test_costs_that_cannot_be_written_are_reported_once(build: Build) -> None:
    (build.folder / "costs.json.lock").mkdir()
    assert build.make(*(unit(build.folder, name, cost_key=KEY) for name in "ab")) == 0
    (message,) = (event for event in build.events if isinstance(event, Message))
    assert message.text.startswith("what compiles took can't be written")


def test_a_command_that_is_no_compile_writes_where_it_wants_to(build: Build) -> None:
    one = unit(build.folder, language=Language.OTHER)
    assert build.make(one) == 0
    assert build.programs.runs[0].argv == one.argv


def test_a_unit_of_nvcc_whose_steps_are_not_known_is_made_by_one_command(build: Build) -> None:
    assert build.make(unit(build.folder, language=Language.CUDA, module_id="an id")) == 0
    assert ["--dryrun" in run.argv for run in build.programs.runs] == [True, False]
    assert [event.step for event in build.events if isinstance(event, JobStarted)] == [""]
