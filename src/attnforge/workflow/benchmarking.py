"""Has wheels timed on this machine's GPU, each in a process of its own, and makes a report of it."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from attnforge.bench import report
from attnforge.bench.sides import TITLES, backends, named, title
from attnforge.bench.work import GRIDS, cells, grid
from attnforge.errors import RequestError, UncheckedError
from attnforge.files import file_sha256
from attnforge.knowledge.shapes import shapes
from attnforge.model.benchmark import BenchReport, Cell, Dtype, Gpu, Result, Shape, Side
from attnforge.version import BUILDER
from attnforge.workflow.beside import environment_beside
from attnforge.workflow.machine import Machine
from attnforge.workflow.trial import Child, Trial, WheelFile, read_name, trial

# Seconds for a first call, which may compile kernels (Triton), and for anything else that is asked.
_FIRST_SECONDS = 240.0
_ANSWER_SECONDS = 60.0

# Rounds where nothing is held against anything, and where it is: the interval of a ratio narrows with rounds.
ROUNDS = 7
ROUNDS_AGAINST = 15

# Seconds for which a side is timed in a round, and calls that may be in flight at once: the GPU's queue holds a
# thousand kernels, and a call may be several.
SAMPLE_SECONDS = 0.02
_MOST_CALLS = 100


@dataclass(frozen=True)
class BenchOptions:
    """How to time. ``grid`` names grids or shapes, see bench/work.py; or ``shapes`` are given instead.

    ``python`` is an environment or interpreter with PyTorch, "" for the active one where all wheels are for its
    PyTorch, and else for a clean environment for each wheel with ``torch``; ``torch`` ``installed`` is the active one.
    ``rounds`` 0 is ROUNDS, or ROUNDS_AGAINST where two wheels are compared. ``seconds`` is how long each side is timed
    in each cell, over all rounds, 0 for SAMPLE_SECONDS a round; a long call is timed once a round whatever it takes.
    ``sdpa`` has PyTorch's own backends timed, too. ``device`` is ``cuda``; ``cpu`` tries all of this without a GPU.
    """

    grid: str = "quick"
    shapes: tuple[Shape, ...] = ()
    dtype: Dtype = "bf16"
    python: str = ""
    torch: str = ""
    rounds: int = 0
    seconds: float = 0.0
    sdpa: bool = True
    device: str = "cuda"


@dataclass
class _Contender:
    """A side, the process that it is in, and how it does in the present cell."""

    side: Side
    child: Child
    first: dict[str, Any] = field(default_factory=dict)
    samples: list[float] = field(default_factory=list)
    calls: int = 0
    failure: Result | None = None


@dataclass(frozen=True)
class _Stand:
    """All that is timed: sides that could be opened, those that could not, and the process that has the yardsticks."""

    contenders: tuple[_Contender, ...]
    sides: tuple[Side, ...]
    yardstick: Child
    looked: dict[str, Any]


def bench_wheels(
    machine: Machine,
    wheels: Sequence[Path],
    against: Sequence[Path] = (),
    options: BenchOptions | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> BenchReport:
    """Time the attention of wheels, and PyTorch's own, over a grid of shapes; ``against`` are two of one package.

    ``tell`` gets a line for each step. A call that fails is that cell's result. Raises RequestError, HostError,
    WheelError for a wheel that can't be unpacked, and UncheckedError where there is no GPU.
    """
    options = options or BenchOptions()
    files = tuple(read_name(path) for path in (*against, *wheels))
    _refuse(files, len(against), options)
    if options.device == "cuda" and not options.python and not machine.host.gpus:
        # Before gigabytes are installed for nothing.
        raise _no_gpu(f"nvidia-smi tells of none; driver: {machine.host.driver or 'none'}")
    beside = environment_beside(machine, [file.path for file in files], options.python, options.torch, tell)
    options = replace(options, python=beside.python) if beside else options
    began = time.monotonic()
    with _stand(machine, files, options, tell) as stand:
        made = _measured(stand, options, bool(against), tell)
    seconds = time.monotonic() - began
    held = report.against(stand.sides[0].name, stand.sides[1].name, made.cells) if against else None
    return made.model_copy(update={"seconds": seconds, "against": held, "driver": machine.host.driver})


def _refuse(files: Sequence[WheelFile], against: int, options: BenchOptions) -> None:
    if not files:
        raise RequestError("there is no wheel to time", hint="attnforge bench dist/NAME.whl")
    for file in files:
        if file.package not in TITLES:
            known = ", ".join(TITLES)
            raise RequestError(f"{file.package} has no attention that bench can call", hint=f"it calls {known}")
    if against and (against != 2 or files[0].package != files[1].package):
        raise RequestError(
            "two wheels of one package can be held against each other",
            why=f"these are {' and '.join(file.package for file in files[:against])}",
            hint="time wheels of several packages without --against",
        )
    if not options.shapes:
        try:
            grid(options.grid)
        except KeyError as error:
            hint = f"--grid takes {', '.join(GRIDS)}, or names of shapes: {', '.join(one.name for one in shapes())}"
            raise RequestError(f"there is no grid or shape {error.args[0]!r}", hint=hint) from None
    if options.rounds < 0 or options.seconds < 0:
        raise RequestError("rounds and seconds can't be negative")


def _no_gpu(why: str) -> UncheckedError:
    return UncheckedError(
        "there is no GPU to time on",
        why=why,
        hint="run it on a machine with an NVIDIA GPU and its driver; in a container, give it the GPU (--gpus all)",
    )


# --- who takes part


@contextmanager
def _stand(
    machine: Machine, files: Sequence[WheelFile], options: BenchOptions, tell: Callable[[str], None]
) -> Iterator[_Stand]:
    """Yield the processes with the wheels, opened; on leaving, they and their environments are gone."""
    with ExitStack() as stack:
        places = [stack.enter_context(_place(machine, file, options, tell)) for file in files]
        # PyTorch alone, in the first wheel's Python: it has the yardsticks and the backends.
        alone = replace(places[0], search=())
        children = [stack.enter_context(Child(place)) for place in (*places, alone)]
        tell("starting processes")
        with ThreadPoolExecutor(len(children)) as pool:  # importing PyTorch takes seconds
            looked = list(pool.map(_look, children))
        if options.device == "cuda" and not all(seen["gpus"] for seen in looked):
            versions = f"PyTorch {looked[-1]['torch']} (CUDA {looked[-1]['cuda'] or 'none'})"
            raise _no_gpu(f"{versions} in {alone.python} sees none; driver: {machine.host.driver or 'none'}")
        wheels = named([_side(place, seen) for place, seen in zip(places, looked, strict=False)])
        sides = [_opened(side, child) for side, child in zip(wheels, children, strict=False)]
        own = backends(looked[-1]["torch"], looked[-1]["python"]) if options.sdpa else ()
        pairs = [*zip(sides, children, strict=False), *((side, children[-1]) for side in own)]
        contenders = tuple(_Contender(side, child) for side, child in pairs if not side.error)
        yield _Stand(contenders, (*sides, *own), children[-1], looked[-1])


@contextmanager
def _place(machine: Machine, file: WheelFile, options: BenchOptions, tell: Callable[[str], None]) -> Iterator[Trial]:
    tell(f"{'unpacking' if options.python else 'installing'} {file.path.name}")
    with trial(machine, file, options.python, options.torch) as place:
        yield place


def _look(child: Child) -> dict[str, Any]:
    seen = child.ask("about", {"do": "look"}, _ANSWER_SECONDS)
    if "error" in seen:
        raise UncheckedError("PyTorch can't look at the GPU", why=str(seen["error"]["text"]))
    return seen


def _side(place: Trial, seen: dict[str, Any]) -> Side:
    file = place.wheel
    return Side(
        name=title(file.package, file.version),
        package=file.package,
        version=file.version,
        wheel=file.path.name,
        sha256=file_sha256(file.path),
        python=seen["python"],
        torch=seen["torch"],
    )


def _opened(side: Side, child: Child) -> Side:
    answer = child.ask("timing", {"do": "open", "package": side.package}, _FIRST_SECONDS)
    return (
        side.model_copy(update={"error": report.failed(side.name, answer["error"]).text}) if "error" in answer else side
    )


# --- the timing itself


def _measured(stand: _Stand, options: BenchOptions, against: bool, tell: Callable[[str], None]) -> BenchReport:
    rounds = options.rounds or (ROUNDS_AGAINST if against else ROUNDS)
    wanted = cells(options.shapes) if options.shapes else grid(options.grid)
    yardsticks: list[dict[str, float]] = []
    done = []
    for at, cell in enumerate(wanted, 1):
        tell(f"timing {cell.name} ({at} of {len(wanted)})")
        results = _timed_cell(stand, cell, options, rounds, yardsticks)
        done.append(cell.model_copy(update={"results": results}))
    return _reported(stand, options, rounds, done, yardsticks)


def _reported(
    stand: _Stand, options: BenchOptions, rounds: int, done: Sequence[Cell], yardsticks: Sequence[dict[str, float]]
) -> BenchReport:
    rates = report.rates(yardsticks)
    seen = stand.looked["gpus"][0] if options.device == "cuda" else {"name": "CPU", "capability": "", "memory": 0}
    return BenchReport(
        builder=BUILDER,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        gpu=Gpu(name=seen["name"], capability=seen["capability"], memory_bytes=seen["memory"]),
        cuda=stand.looked["cuda"],
        driver="",
        grid="" if options.shapes else options.grid,
        dtype=options.dtype,
        rounds=rounds,
        rates=rates,
        sides=stand.sides,
        cells=tuple(report.with_shares(cell, rates) for cell in done),
    )


def _timed_cell(
    stand: _Stand, cell: Cell, options: BenchOptions, rounds: int, yardsticks: list[dict[str, float]]
) -> tuple[Result, ...]:
    """Have each side prepare, then take turns: a clock that drifts, or heat, then falls on all alike."""
    for contender in stand.contenders:
        contender.samples, contender.calls, contender.failure = [], 0, None
        _prepare(contender, cell, options)
    for turn in range(rounds):
        yardsticks.append(_yardsticks(stand.yardstick, options))
        first = turn % max(1, len(stand.contenders))
        for contender in (*stand.contenders[first:], *stand.contenders[:first]):
            _sample(contender, cell, options, rounds)
    for child in {id(one.child): one.child for one in stand.contenders}.values():
        child.ask("timing", {"do": "clear", "device": options.device}, _ANSWER_SECONDS)
    return tuple(_result(contender, cell) for contender in stand.contenders)


def _yardsticks(child: Child, options: BenchOptions) -> dict[str, float]:
    answer = child.ask("timing", {"do": "rates", "device": options.device}, _ANSWER_SECONDS)
    if "error" in answer:
        raise UncheckedError("the GPU's own rates can't be measured", why=str(answer["error"]["text"]))
    return answer


def _prepare(contender: _Contender, cell: Cell, options: BenchOptions) -> None:
    asked = {"cell": cell.to_json(), "dtype": options.dtype}
    answer = _asked(contender, "prepare", options, _FIRST_SECONDS, asked)
    if "error" not in answer:
        contender.first = answer


def _sample(contender: _Contender, cell: Cell, options: BenchOptions, rounds: int) -> None:
    """Time a side once; a process that had to be started anew, for a side beside it, prepares again."""
    if contender.failure:
        return
    milliseconds = 1e3 * (options.seconds / rounds if options.seconds else SAMPLE_SECONDS)
    expected = max(contender.first["ms"], 1e-4)
    contender.calls = contender.calls or min(_MOST_CALLS, max(1, round(milliseconds / expected)))
    patience = _ANSWER_SECONDS + 20 * contender.calls * expected / 1e3
    answer = _asked(contender, "time", options, patience, {"calls": contender.calls})
    if answer.get("error", {}).get("type") == "NotPreparedError":
        contender.failure = None
        _prepare(contender, cell, options)
        answer = {} if contender.failure else _asked(contender, "time", options, patience, {"calls": contender.calls})
    if "ms" in answer:
        contender.samples.append(answer["ms"])


def _asked(
    contender: _Contender, what: str, options: BenchOptions, patience: float, more: dict[str, Any]
) -> dict[str, Any]:
    """Ask a side's process; a failure is its result in this cell."""
    side = contender.side
    request = {"do": what, "package": side.package, "kernel": side.kernel, "device": options.device, **more}
    answer = contender.child.ask("timing", request, patience)
    if "error" in answer:
        contender.failure = report.failed(side.name, answer["error"])
    return answer


def _result(contender: _Contender, cell: Cell) -> Result:
    if contender.failure:
        return contender.failure
    first = contender.first
    return report.timed(
        contender.side.name, cell, contender.samples, contender.calls, first["host_us"], first["accuracy"]
    )
