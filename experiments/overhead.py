"""What attnforge itself costs: the start of its commands, the seat's answer, and the engine for each job.

Run it with the interpreter that attnforge is installed for: ``python experiments/overhead.py``. It needs a C++
compiler, and neither GPU, torch nor nvcc. Each figure is the median of several rounds with its least and greatest
value. The engine is held against a bare pool of processes that runs the same commands, in the same rounds, taking turns
as to which is first, so that a machine that slows down is not taken for a difference.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from attnforge.compile.graph.passes.price import price
from attnforge.compile.run.cost import CostModel
from attnforge.compile.run.engine import Engine
from attnforge.compile.run.sampler import SAMPLE_SECONDS, resident_by_session
from attnforge.compile.seat.server import write_seat
from attnforge.model.events import ignore
from attnforge.recipes.catalogue import recipes

SCHEMA = 1
MILLI = 1000.0


@dataclass(frozen=True, slots=True)
class Spent:
    """What one run took, in seconds: ``wall``, and ``cpu`` (user and system) of all processes that it waited for."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Figure:
    """A quantity over all rounds, in milliseconds."""

    what: str
    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, what: str, seconds: Iterable[float]) -> Figure:
        """Make a figure of measurements in seconds."""
        values = [value * MILLI for value in seconds]
        return cls(what, round(statistics.median(values), 3), round(min(values), 3), round(max(values), 3))


def figures(what: str, spent: Sequence[Spent], count: int = 1) -> list[Figure]:
    """Return wall and CPU time for each of ``count`` things that a run did."""
    return [
        Figure.of(f"{what}, wall", (one.wall / count for one in spent)),
        Figure.of(f"{what}, CPU", (one.cpu / count for one in spent)),
    ]


# --- commands


def run_command(argv: Sequence[str], cwd: Path, environment: dict[str, str]) -> Spent:
    """Run a command to its end; SystemExit where it fails."""
    began = time.monotonic()
    process = subprocess.Popen(argv, cwd=cwd, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(argv)} ended with {process.returncode}")
    return Spent(wall, usage.ru_utime + usage.ru_stime)


def command_figures(rounds: int, folder: Path) -> list[Figure]:
    """Measure the commands, one after the other in each round; the first round only warms the disk's cache."""
    seat = write_seat(folder, sys.executable, folder / "no-socket")
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "attnforge --help": [sys.executable, "-m", "attnforge", "--help"],
        "attnforge plan": [sys.executable, "-m", "attnforge", "plan", "flash-attn", "--gpu", "H100", "--json"],
        "seat: ninja --version": [str(seat), "--version"],
    }
    # Nothing of the user's configuration: every machine measures the same request.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ATTNFORGE_")}
    environment = {**kept, "ATTNFORGE_CACHE": str(folder / "cache")}
    spent: dict[str, list[Spent]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, argv in commands.items():
            one = run_command(argv, folder, environment)
            if number:
                spent[name].append(one)
    return [figure for name, measured in spent.items() for figure in figures(name, measured)]


# --- the engine


def write_units(folder: Path, count: int, compiler: str) -> list[list[str]]:
    """Write ``count`` tiny sources and a build.ninja that compiles them; return the same commands as lists."""
    folder.mkdir(parents=True)
    lines = [f"rule compile\n  command = {compiler} -c $in -o $out\n"]
    commands = []
    for number in range(count):
        (folder / f"unit{number}.cpp").write_text(f"int unit{number}() {{ return {number}; }}\n", encoding="utf-8")
        lines.append(f"build unit{number}.o: compile unit{number}.cpp\n")
        commands.append([compiler, "-c", f"unit{number}.cpp", "-o", f"unit{number}.o"])
    (folder / "build.ninja").write_text("\n".join(lines), encoding="utf-8")
    return commands


def used() -> float:
    """Return the CPU seconds of this process and of all that it waited for."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def timed(work: Callable[[], None]) -> Spent:
    """Do something and return what it took."""
    began, cpu = time.monotonic(), used()
    work()
    return Spent(time.monotonic() - began, used() - cpu)


def run_pool(folder: Path, commands: Sequence[Sequence[str]], slots: int) -> None:
    """Run the commands with ``slots`` threads and nothing else."""

    def one(argv: Sequence[str]) -> None:
        subprocess.run(argv, cwd=folder, check=True)

    with ThreadPoolExecutor(slots) as pool:
        list(pool.map(one, commands))


def run_engine(folder: Path, plan_folder: Path, slots: int) -> None:
    """Make the objects of build.ninja through the seat, as upstream's build does; opening and closing included."""
    plan_folder.mkdir(parents=True, exist_ok=True)
    with (
        (plan_folder / "log.txt").open("a", encoding="utf-8") as log,
        Engine(
            folder=plan_folder,
            slots=slots,
            # Room for every slot at the prediction for an unknown unit: only the slots are to limit.
            budget_bytes=slots * 8 * 2**30,
            # Units with a cost key, as in a build: what each took is written down.
            passes=(price(lambda what: what),),
            costs=CostModel(plan_folder / "costs.json"),
            observe=ignore,
            log=log,
            temporary=plan_folder / "temporary",
        ) as engine,
    ):
        subprocess.run([str(engine.seat_folder / "ninja"), "-v"], cwd=folder, check=True, stdout=subprocess.DEVNULL)


@dataclass(frozen=True, slots=True)
class EngineRound:
    """The same units by a bare pool, by the engine, and by the engine again with every object at hand."""

    pool: Spent
    engine: Spent
    again: Spent


def engine_round(number: int, folder: Path, count: int, slots: int, compiler: str) -> EngineRound:
    """Run one round; odd rounds run the engine first."""
    commands = write_units(folder / "pool", count, compiler)
    write_units(folder / "engine", count, compiler)
    spent: dict[str, Spent] = {}
    work = {
        "pool": lambda: run_pool(folder / "pool", commands, slots),
        "engine": lambda: run_engine(folder / "engine", folder / "plan", slots),
    }
    for name in sorted(work, reverse=number % 2 == 0):
        spent[name] = timed(work[name])
    spent["again"] = timed(work["engine"])
    return EngineRound(**spent)


def engine_figures(rounds: Sequence[EngineRound], count: int) -> list[Figure]:
    """Return what a job takes in each way, and what the engine adds to it (paired by round)."""
    added = [Spent(one.engine.wall - one.pool.wall, one.engine.cpu - one.pool.cpu) for one in rounds]
    return [
        *figures("job in a bare pool", [one.pool for one in rounds], count),
        *figures("job in the engine", [one.engine for one in rounds], count),
        *figures("added by the engine to a job", added, count),
        *figures("object at hand, placed", [one.again for one in rounds], count),
    ]


def sample_figure(rounds: int, repeat: int = 20) -> Figure:
    """Measure one look at the memory of all processes, which the engine takes every SAMPLE_SECONDS at most."""

    def look() -> None:
        for _ in range(repeat):
            resident_by_session()

    return Figure.of("memory sample, CPU", (timed(look).cpu / repeat for _ in range(rounds)))


# --- the report


def shares(found: Sequence[Figure]) -> dict[str, float]:
    """Return what the engine adds as a share of FlashAttention 2's shortest unit, and the sampler's share of a CPU."""
    by_name = {figure.what: figure.median / MILLI for figure in found}
    shortest = min(cost.alone(0.0) for cost in recipes()["flash-attn"].costs)
    return {
        "added to the shortest unit of flash-attn": by_name["added by the engine to a job, wall"] / shortest,
        "memory samples, of one CPU": by_name["memory sample, CPU"] / SAMPLE_SECONDS,
    }


def table(found: Sequence[Figure], parts: dict[str, float]) -> str:
    """Return the figures as text."""
    width = max(len(figure.what) for figure in found)
    lines = [f"{'':<{width}}  {'median':>10}  {'least':>10}  {'greatest':>10}  ms"]
    lines += [f"{f.what:<{width}}  {f.median:>10.2f}  {f.least:>10.2f}  {f.greatest:>10.2f}" for f in found]
    lines += [f"{name:<{width}}  {share:>10.4%}" for name, share in parts.items()]
    return "\n".join(lines)


def measure(rounds: int, count: int, slots: int, compiler: str) -> list[Figure]:
    """Measure everything, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="attnforge-overhead-") as name:
        folder = Path(name)
        found = command_figures(rounds, folder)
        taken = [engine_round(n, folder / f"round{n}", count, slots, compiler) for n in range(rounds)]
    return [*found, *engine_figures(taken, count), sample_figure(rounds)]


def positive(text: str) -> int:
    """Read a number of 1 or more; ValueError for anything else."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def main(arguments: Sequence[str]) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="What attnforge itself costs, in milliseconds.")
    parser.add_argument("--rounds", type=positive, default=5, help="measurements of each figure (default 5)")
    parser.add_argument("--units", type=positive, default=100, help="tiny compiles in each round (default 100)")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    options = parser.parse_args(arguments)
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        parser.error("there is no C++ compiler: install g++, or set CXX to one")
    slots = len(os.sched_getaffinity(0))
    found = measure(options.rounds, options.units, slots, compiler)
    parts = shares(found)
    if options.json:
        document = {
            "schema": SCHEMA,
            "python": platform.python_version(),
            "cpus": slots,
            "rounds": options.rounds,
            "units": options.units,
            "milliseconds": [asdict(figure) for figure in found],
            "shares": parts,
        }
        print(json.dumps(document, indent=1))
    else:
        print(f"{options.rounds} rounds, {options.units} tiny compiles in each, {slots} at once")
        print(table(found, parts))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
