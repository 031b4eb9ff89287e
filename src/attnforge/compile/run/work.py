"""Calls of ninja, their units and the jobs of these, as the engine's parts share them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from attnforge.compile.reuse.making import Making
from attnforge.compile.reuse.objects import Cost
from attnforge.compile.run.executor import Ended
from attnforge.compile.run.summary import How
from attnforge.compile.seat.server import Say
from attnforge.model.cost import Prediction, family, step_key
from attnforge.model.graph import CompileGraph, GeneratedFile, Language, Unit
from attnforge.schedule.scheduler import Job

WHOLE = ""
"""The label of a job that makes a unit with one command."""

OPEN = "open"
"""The label of a job that checks whether a unit is cached, and takes nvcc's call apart."""


@dataclass(frozen=True, slots=True)
class Product:
    """An object that was put where upstream's link step expects it.

    ``call`` counts the calls of ninja. ``sources`` are upstream's own: of a unit that others were merged into, theirs
    too. ``reads`` are the folders that its compile read files of (``reuse.reads``), None if that is not known.
    """

    call: int
    output: str
    sources: tuple[str, ...]
    language: Language
    how: How
    reads: frozenset[str] | None = None


@dataclass(slots=True, eq=False)
class Batch:
    """A call of ninja that is being served: its number, and its graph before and after the passes.

    ``left`` counts the units that are still to be made. ``objects`` are those that are there, by output. A call that is
    ``rehearsed`` is answered before its kernels are there (``run.rehearsal``); ``resumed`` says that upstream's
    build has made it again, for all of them. ``unsaid`` are lines that no seat was there to print.
    """

    number: int
    received: CompileGraph
    graph: CompileGraph
    headers: tuple[GeneratedFile, ...]
    environment: Mapping[str, str]
    say: Say
    left: int = 0
    done: int = 0
    objects: dict[str, Path] = field(default_factory=dict)
    rehearsed: bool = False
    resumed: bool = False
    unsaid: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Work(Making):
    """A unit that has to be made for a call of ninja (see ``begin``).

    ``done`` are the labels of steps that have ended well, ``sought`` those whose outputs were looked for before they
    ran. ``number`` tells works apart that make the same object. ``given_up`` says that it failed and that its fallback
    is made instead. ``reads`` are the folders that its compile read files of, None if that is not known.
    """

    batch: Batch = field(kw_only=True)
    number: int = 0
    key: str = ""
    done: set[str] = field(default_factory=set)
    sought: set[str] = field(default_factory=set)
    given_up: bool = False
    reads: frozenset[str] | None = None

    def job(self, label: str) -> str:
        """Return the scheduler's name of the job with that label."""
        return f"{self.number} {label}"

    def spend(self, ended: Ended) -> None:
        """Add what a program took."""
        self.spent = Cost(
            self.spent.seconds + ended.seconds,
            self.spent.cpu_seconds + ended.cpu_seconds,
            max(self.spent.peak_bytes, ended.peak_bytes),
        )


def begin(unit: Unit, batch: Batch, folder: Path, temporary: Path, number: int = 0) -> Work:
    """Return a unit of a call that is about to be made in these folders."""
    return Work(unit, batch.graph.files, seen(unit, batch), folder, temporary, batch=batch, number=number)


@dataclass(slots=True, eq=False)
class Task:
    """One job of a unit: a step of nvcc by its label, OPEN or WHOLE.

    ``tail`` and ``mean_bytes`` are predicted, too (see schedule.scheduler.Job); ``needs`` are other jobs
    of the unit. ``started`` is 0 before it runs. ``retry_bytes`` is what it gets when it is tried again, 0 if it is
    not.
    """

    work: Work
    label: str
    predicted: Prediction
    needs: frozenset[str] = frozenset()
    tail: float = 0.0
    mean_bytes: int = 0
    kills: int = 0
    retry_bytes: int = 0
    slot: int = 0
    session: int = 0
    started: float = 0.0

    @property
    def id(self) -> str:
        """The scheduler's name of the job."""
        return self.work.job(self.label)


def job_of(task: Task) -> Job:
    """Return a task as the scheduler knows it."""
    # What has been begun goes first, so that few compiles have files in the temporary folder at once.
    rank = 1 if task.label in (OPEN, WHOLE) else 0
    # A rehearsal waits only for host units. They go first, also if an earlier call's kernels have all slots: so cheap
    # failures come early.
    rank = -1 if task.work.batch.rehearsed and is_host(task.work.unit) else rank
    needs = task.needs | frozenset(task.work.unit.needs)
    found = task.predicted
    kind = kind_of(task.work.unit, task.label)
    return Job(
        task.id, found.seconds, found.peak_bytes, needs, task.tail, rank, found.late_bytes, task.mean_bytes, kind
    )


def kind_of(unit: Unit, label: str) -> str:
    """Return what a job has in common with those whose memory is predicted wrongly together with its own."""
    if unit.kernel:
        return family(step_key(unit.cost_key, label))
    return f"{unit.language} {label.partition(' ')[0]}"


def is_step(task: Task) -> bool:
    """Say whether a job is a step of a unit that was opened."""
    return task.label not in (OPEN, WHOLE)


def are_alike(one: Unit, other: Unit) -> bool:
    """Say whether what one unit took may change what is predicted of another: a package may have thousands."""
    if one.cost_key == other.cost_key:
        return True
    return bool(one.kernel and other.kernel) and kind_of(one, WHOLE) == kind_of(other, WHOLE)


def is_host(unit: Unit) -> bool:
    """Say whether a unit has to be there before a call of a rehearsal is answered: it holds no kernel."""
    return unit.language is Language.CXX


def seen(unit: Unit, batch: Batch) -> dict[str, str]:
    """Return the variables of the environment that a unit's compile sees."""
    return {name: value for name, value in batch.environment.items() if name not in unit.ignores}


def product(unit: Unit, batch: Batch, how: How, reads: frozenset[str] | None) -> Product:
    """Return what a unit's object is made of, by upstream's own sources."""
    theirs = {one.output: one.sources for one in batch.received.units}
    outputs = dict.fromkeys((unit.output, *unit.members))
    sources = tuple(source for output in outputs for source in theirs.get(output, ()))
    return Product(batch.number, unit.output, sources or unit.sources, unit.language, how, reads)
