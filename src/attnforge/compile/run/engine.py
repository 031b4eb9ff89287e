"""The compile engine: receives upstream's graphs through the seat, applies the passes and makes every object."""

from __future__ import annotations

import itertools
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

from attnforge.compile.reuse.cache.notices import Notices
from attnforge.compile.reuse.objects import ObjectStore
from attnforge.compile.reuse.reuse import Reuse
from attnforge.compile.run import failures
from attnforge.compile.run.aside import is_aside, run_aside
from attnforge.compile.run.calls import Calls
from attnforge.compile.run.chain import Watch
from attnforge.compile.run.compiler import Compiler
from attnforge.compile.run.cost import CostModel
from attnforge.compile.run.executor import Executor
from attnforge.compile.run.others import Others
from attnforge.compile.run.placement import Placement
from attnforge.compile.run.places import Places
from attnforge.compile.run.progress import Ticker
from attnforge.compile.run.queue import Queue
from attnforge.compile.run.reporter import Reporter
from attnforge.compile.run.summary import Summary
from attnforge.compile.run.units import Units
from attnforge.compile.run.work import Product, Task
from attnforge.compile.seat.server import FirstError, Say, Server, write_seat
from attnforge.errors import AttnforgeError
from attnforge.model.events import Message, Observer
from attnforge.model.graph import CompileGraph, Pass

__all__ = ["Engine", "Watch"]


@dataclass(kw_only=True, eq=False)
class Engine:
    """Makes the objects that upstream's build asks for. A context manager, used from one thread; one at a
    time for a folder.

    Put ``seat_folder`` first on PATH of upstream's build. When that has ended, check ``error`` first: it is the
    real cause where upstream only says that compiling failed. Leaving the context ends every compiler at once and
    keeps every object that was finished.

    ``folder`` is the plan's. At most ``slots`` compilers run at once and are expected to hold ``budget_bytes`` together
    at most. ``observe`` gets events, ``log`` what compilers print. ``temporary`` is where compilers may write; what is
    written is removed. ``python`` runs the seat (ours, if ""). ``reuse`` is the cache across plans; without it, only
    what this plan's folder holds is not made again. ``watch`` is shown each step whose outputs are there, while they
    are, from several threads. ``free`` says how many bytes of memory compilers may take now beside what they hold.
    """

    folder: Path
    slots: int
    budget_bytes: int
    passes: Sequence[Pass]
    costs: CostModel
    observe: Observer
    log: IO[str]
    temporary: Path
    python: str = ""
    reuse: Reuse | None = None
    watch: Watch | None = None
    free: Callable[[], int] | None = None
    seat_folder: Path = field(default=Path(), init=False)

    def __enter__(self) -> Self:
        try:
            self._open()
        except OSError as error:
            raise self._host_error(error) from error
        return self

    def _open(self) -> None:
        self._began, self._ended = time.monotonic(), 0.0
        self._asides = itertools.count()
        self._errors = FirstError()
        self._reporter = Reporter(self.observe, self.log)
        self._queue = Queue(self.slots, self.budget_bytes, self.costs, self._errors, self._perform)
        self._others = Others(self.budget_bytes, self.free, self._warn)
        self._places = places = Places.make(self.folder, self.temporary)
        self._executor = Executor([places.temporary], self._sampled)
        self._ticker = Ticker(self._queue, self._reporter, self._executor.memory)
        self._compose(self.reuse or Reuse())
        self._server = Server(places.socket, self._serve, self._errors)
        write_seat(places.seat, self.python or sys.executable, places.socket)
        self.seat_folder = places.seat
        self._ticker.start()

    def _compose(self, reuse: Reuse) -> None:
        """Make what serves calls, and what does the jobs of their units."""
        places, queue, reporter = self._places, self._queue, self._reporter
        units = Units(places, self.costs, reuse.prefixes)
        store = ObjectStore(self.folder / "objects")
        placement = Placement(store, reuse, self._executor, places.work, reporter)
        self._calls = Calls(self.passes, self.costs, queue, units, placement, reporter)
        self._compiler = Compiler(
            places=places,
            executor=self._executor,
            queue=queue,
            units=units,
            placement=placement,
            reuse=reuse,
            costs=self.costs,
            reporter=reporter,
            errors=self._errors,
            notices=Notices(self._warn),
            watch=self.watch or (lambda work, step: None),
        )

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every compiler at once. Finished objects are kept."""
        self._queue.close()
        self._executor.stop()
        self._queue.join()
        self._server.close()
        self._ticker.close()
        self._ended = self._ended or time.monotonic()
        self._executor.close()
        shutil.rmtree(self._places.work, ignore_errors=True)

    # --- what was done

    @property
    def error(self) -> AttnforgeError | None:
        """The first real failure; None while all is well. An exception that is our own fault is raised."""
        error = self._errors.error
        if error is not None and not isinstance(error, AttnforgeError):
            raise error
        return error

    @property
    def summary(self) -> Summary:
        """What was done so far."""
        seconds = (self._ended or time.monotonic()) - self._began
        return self._reporter.summary(self._executor.memory.peak_bytes, seconds)

    @property
    def products(self) -> tuple[Product, ...]:
        """The objects that are in place, sorted by call and path."""
        return self._reporter.products

    # --- a rehearsal

    def rehearse(self) -> None:
        """Answer calls of ninja from here on when their host units are there, and go on with the kernels.

        That is done where enough of them is left to compile; see ``rehearsed`` afterwards.
        """
        self._calls.rehearse()

    @property
    def rehearsed(self) -> bool:
        """Whether a call was answered with objects missing, so that upstream's build has to run again."""
        return self._calls.rehearsed

    def perform(self) -> None:
        """Answer calls of ninja from here on when all objects are there, those of the rehearsal among them."""
        self._calls.perform()

    @property
    def performed(self) -> bool:
        """Whether upstream's build has asked again for all that it got an object without content for."""
        return self._calls.performed

    def drain(self) -> None:
        """Wait until nothing runs and nothing waits to run; check ``error`` then."""
        self._calls.drain()

    # --- what calls back

    def _serve(self, graph: CompileGraph, environment: Mapping[str, str], say: Say) -> int:
        """Make all objects of a graph: ninja's exit code."""
        try:
            if is_aside(graph, environment):
                log = self._places.temporary / f"aside-{next(self._asides)}"
                return run_aside(graph, environment, self._executor, log, say)
            return self._calls.serve(graph, environment, say)
        except OSError as error:
            raise self._host_error(error) from error

    def _perform(self, task: Task) -> bool:
        return self._compiler.perform(task)

    def _sampled(self) -> None:
        memory = self._executor.memory
        self._queue.observe(memory.held, self._others.taken(memory.used_bytes))

    def _warn(self, text: str) -> None:
        self._reporter.emit(Message("warning", text))

    def _host_error(self, error: OSError) -> AttnforgeError:
        return failures.host_error(error, (self.folder, self.temporary))
