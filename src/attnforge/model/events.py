"""What happens during a build, as values: a display draws them, ``--json`` prints them, tests collect them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """The root of all events."""

    def to_json(self) -> dict[str, Any]:
        """Return the event as one JSON object; ``event`` names its kind."""
        return {"event": type(self).__name__, **asdict(self)}


@dataclass(frozen=True, slots=True)
class StageStarted(Event):
    """A stage of the build began: source, toolchain, environment, compile, package, audit."""

    stage: str
    detail: str


@dataclass(frozen=True, slots=True)
class StageFinished(Event):
    """A stage ended well, after ``seconds`` of wall time."""

    stage: str
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class GraphReceived(Event):
    """Upstream's build asked for ``units`` objects.

    ``compile`` are to be compiled, ``merged`` are part of another one, ``empty`` left out, ``reused`` available.
    """

    units: int
    compile: int
    merged: int
    empty: int
    reused: int
    predicted_seconds: float


@dataclass(frozen=True, slots=True)
class Rehearsed(Event):
    """Upstream's link and packaging were tried while kernels compile, by ``seconds`` after the compile stage began.

    ``ok`` says that they work. Where that can't be said before the kernels are there, ``why`` is what was in the way.
    """

    seconds: float
    ok: bool
    why: str


@dataclass(frozen=True, slots=True)
class JobStarted(Event):
    """A compile, or a step of one ("" for a whole compile), began in a slot (0-based) with that prediction."""

    slot: int
    name: str
    step: str
    predicted_seconds: float
    predicted_bytes: int


@dataclass(frozen=True, slots=True)
class JobFinished(Event):
    """A compile or step ended. ``peak_bytes`` and ``cpu_seconds`` were measured; ``ok`` says whether it succeeded.

    ``stopped`` says that the build ended it, and that it did not fail by itself.
    """

    slot: int
    name: str
    step: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    ok: bool
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class UnitFinished(Event):
    """An object is there: ``how`` is compiled, or cached (from earlier builds, also of other plans)."""

    name: str
    how: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class PairFinished(Event):
    """The modules of a pair of a universal wheel are made, after ``seconds`` of upstream's build."""

    torch: str
    python: str
    seconds: float


@dataclass(frozen=True, slots=True)
class JobRetried(Event):
    """A compile or step was killed (usually for memory) and is tried again with a larger reservation."""

    name: str
    step: str
    reason: str
    reserved_bytes: int


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """Once a second or so: objects ``done`` of ``total``, bytes used by compilers of the budget, seconds left."""

    done: int
    total: int
    used_bytes: int
    reserved_bytes: int
    budget_bytes: int
    remaining_seconds: float


@dataclass(frozen=True, slots=True)
class Downloading(Event):
    """Once a second or so while archives are fetched: bytes ``done_bytes`` of ``total_bytes``, of all of them."""

    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Downloaded(Event):
    """An archive is there and its hash is right, after ``seconds``.

    ``kept_bytes`` of its ``size_bytes`` had been fetched before: all of them where nothing was left to fetch.
    """

    name: str
    size_bytes: int
    kept_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Message(Event):
    """A line for people. ``level`` is info or warning."""

    level: str
    text: str


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """A package is done: paths of the wheel and of the report beside it."""

    package: str
    wheel: str
    report: str
    seconds: float


Observer = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Observe nothing."""


def kinds() -> dict[str, tuple[str, ...]]:
    """Return every kind of event with its fields: the documentation of ``build --json``."""
    return {kind.__name__: tuple(field.name for field in fields(kind)) for kind in Event.__subclasses__()}
