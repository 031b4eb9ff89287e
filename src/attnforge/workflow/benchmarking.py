"""Times wheels on this machine's GPU, each in its own process, and makes the report."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from attnforge.bench import report
from attnforge.bench.sides import TITLES, backends, named, title
from attnforge.bench.work import GRIDS, cells, grid
from attnforge.errors import RequestError, UncheckedError
from attnforge.files import file_sha256
from attnforge.knowledge.shapes import shapes
from attnforge.model.benchmark import BenchReport, Cell, Dtype, Gpu, Result, Shape, Side
from attnforge.ongpu.protocol import Failed, GpuFound, Look, RatesFound
from attnforge.version import BUILDER
from attnforge.workflow.beside import environment_beside
from attnforge.workflow.child import Child
from attnforge.workflow.contender import ANSWER_SECONDS, FIRST_SECONDS, Contender, Timing
from attnforge.workflow.fitting import WheelFile, read_name
from attnforge.workflow.machine import Machine
from attnforge.workflow.trial import Trial, trial

# Rounds without and with --against: the interval of a ratio narrows with the number of rounds.
ROUNDS = 7
ROUNDS_AGAINST = 15

# Seconds for which a side is timed in a round.
SAMPLE_SECONDS = 0.02


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


@dataclass(frozen=True)
class _Stand:
    """All that is timed: sides that could be opened, those that could not, and the process that has the yardsticks."""

    contenders: tuple[Contender, ...]
    sides: tuple[Side, ...]
    yardstick: Child
    looked: Look


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
        raise _no_gpu(f"nvidia-smi lists none; driver: {machine.host.driver or 'none'}")
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
            "--against compares two wheels of one package",
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
        # A process with PyTorch only, in the first wheel's Python, measures the yardsticks and PyTorch's backends.
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
        contenders = tuple(Contender(side, child) for side, child in pairs if not side.error)
        yield _Stand(contenders, (*sides, *own), children[-1], looked[-1])


@contextmanager
def _place(machine: Machine, file: WheelFile, options: BenchOptions, tell: Callable[[str], None]) -> Iterator[Trial]:
    tell(f"{'unpacking' if options.python else 'installing'} {file.path.name}")
    with trial(machine, file, options.python, options.torch) as place:
        yield place


def _look(child: Child) -> Look:
    seen: Look | Failed = child.ask("about", {"do": "look"}, ANSWER_SECONDS)
    if "error" in seen:
        raise UncheckedError("PyTorch can't use the GPU", why=seen["error"]["text"])
    return seen


def _side(place: Trial, seen: Look) -> Side:
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
    answer: dict[str, object] | Failed = child.ask("timing", {"do": "open", "package": side.package}, FIRST_SECONDS)
    if "error" not in answer:
        return side
    error = cast(Failed, answer)["error"]
    return side.model_copy(update={"error": report.failed(side.name, error).text})


# --- the timing itself


def _measured(stand: _Stand, options: BenchOptions, against: bool, tell: Callable[[str], None]) -> BenchReport:
    rounds = options.rounds or (ROUNDS_AGAINST if against else ROUNDS)
    wanted = cells(options.shapes) if options.shapes else grid(options.grid)
    how = Timing(options.dtype, options.device, options.seconds / rounds if options.seconds else SAMPLE_SECONDS)
    yardsticks: list[RatesFound] = []
    done = []
    for at, cell in enumerate(wanted, 1):
        tell(f"timing {cell.name} ({at} of {len(wanted)})")
        results = _timed_cell(stand, cell, how, rounds, yardsticks)
        done.append(cell.model_copy(update={"results": results}))
    return _reported(stand, options, rounds, done, yardsticks)


def _reported(
    stand: _Stand, options: BenchOptions, rounds: int, done: Sequence[Cell], yardsticks: Sequence[RatesFound]
) -> BenchReport:
    rates = report.rates(yardsticks)
    cpu: GpuFound = {"name": "CPU", "capability": "", "memory": 0}
    seen = stand.looked["gpus"][0] if options.device == "cuda" else cpu
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
    stand: _Stand, cell: Cell, how: Timing, rounds: int, yardsticks: list[RatesFound]
) -> tuple[Result, ...]:
    """Have each side prepare, then take turns: so a clock that drifts, or heat, is the same for all."""
    for contender in stand.contenders:
        contender.enter(cell, how)
    for turn in range(rounds):
        yardsticks.append(_yardsticks(stand.yardstick, how))
        first = turn % max(1, len(stand.contenders))
        for contender in (*stand.contenders[first:], *stand.contenders[:first]):
            contender.sample()
    for child in {id(one.child): one.child for one in stand.contenders}.values():
        child.ask("timing", {"do": "clear", "device": how.device}, ANSWER_SECONDS)
    return tuple(contender.result() for contender in stand.contenders)


def _yardsticks(child: Child, how: Timing) -> RatesFound:
    answer: RatesFound | Failed = child.ask("timing", {"do": "rates", "device": how.device}, ANSWER_SECONDS)
    if "error" in answer:
        raise UncheckedError("the GPU's own rates can't be measured", why=answer["error"]["text"])
    return answer
