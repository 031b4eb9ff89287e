"""Measures how well the scheduler packs a build into little memory: 8 GB where 16 compiles at once would be chosen.

    python experiments/memory.py [--profiles diffusion,inference,full] [--budget-gb 8] [--jobs 16] [--rounds 5]

Simulated: the jobs of a build of FlashAttention 2 for an H100, step by step (preprocess, cudafe++, cicc, ptxas, host
compile), planned for that many jobs and that memory, with the seconds and peaks of the recipe, run on attnforge's own
scheduler without a clock. Each job takes what was predicted times a random factor (a log-normal one of --spread,
seeded by the round). An ideal packing of the same jobs is no faster than the least time that its sizes allow, and no
slower than the best that a random search finds which knows all jobs and times from the start: throughput is each of
these times by the scheduler's.

Real: the jobs of the first profile, --scale times as large and --speed times as fast, as processes that really hold
that memory, made by attnforge's engine through the seat. What they hold together is sampled here, beside the engine's
own samples. It needs budget times scale of free memory, neither GPU, nor network, nor nvcc.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from attnforge import Machine, plan
from attnforge.compile.run.cost import CostModel
from attnforge.compile.run.engine import Engine
from attnforge.model.cost import Prediction
from attnforge.model.events import ignore
from attnforge.model.graph import CompileGraph
from attnforge.model.request import Request
from cases import PACKAGE, clean_environ, elsewhere, positive, words
from figures import Figure, report
from measure import Memory, say
from packing import Compile, Part, compiles, found_seconds, ideal_seconds, simulate

PROFILES = "diffusion,inference,full"

_HOLD = Path(__file__).with_name("hold.py")

# What a Python process takes that holds nothing; and what is left free of a prediction, as real compilers do.
_LEAST_BYTES = 14_000_000
_SHARE = 0.97


@dataclass(frozen=True)
class Limits:
    """Compiles at once, and what they may hold together."""

    slots: int
    budget_bytes: int


def main(arguments: Sequence[str]) -> None:
    """Run as a program."""
    given = options().parse_args(arguments)
    limits = Limits(given.jobs, int(given.budget_gb * 1e9))
    with tempfile.TemporaryDirectory(prefix="attnforge-bench-") as name:
        folder = Path(name)
        # A cache folder in which nothing was learned: predictions are the recipe's.
        machine = elsewhere(folder / "cache", clean_environ())
        builds = {profile: jobs_of(machine, profile, limits) for profile in given.profiles}
        found = [figure for profile in builds for figure in simulated(profile, builds[profile], limits, given)]
        if not given.simulated_only:
            found += real(given.profiles[0], builds[given.profiles[0]], limits, given, folder)
    notes = [
        f"{given.jobs} compiles at once at most, a budget of {given.budget_gb:g} GB; FlashAttention 2 for H100",
        "an ideal packing takes no less than no packing can beat, and no more than the best packing that was found",
        *(f"{profile}: {len(units)} compiles, {count(units)} jobs" for profile, units in builds.items()),
    ]
    print(report("memory", found, notes, {"jobs": given.jobs, "budget_bytes": limits.budget_bytes}, given.json))


def count(units: Sequence[Compile]) -> int:
    """Return how many jobs compiles are."""
    return sum(len(unit.parts) for unit in units)


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", type=words, default=words(PROFILES), help=f"default {PROFILES}")
    parser.add_argument("--budget-gb", type=float, default=8.0, help="10**9 bytes, default 8")
    parser.add_argument("--jobs", type=positive, default=16, help="default 16")
    parser.add_argument("--rounds", type=positive, default=5, help="default 5; the real part runs once")
    parser.add_argument("--tries", type=positive, default=200, help="of the search for a good packing, default 200")
    parser.add_argument("--spread", type=float, default=0.1, help="of what jobs take, default 0.1")
    parser.add_argument("--scale", type=float, default=0.1, help="of memory in the real part, default 0.1")
    parser.add_argument("--speed", type=float, default=20.0, help="of time in the real part, default 20")
    parser.add_argument("--simulated-only", action="store_true", help="leave the real part out")
    parser.add_argument("--json", action="store_true")
    return parser


def jobs_of(machine: Machine, profile: str, limits: Limits) -> list[Compile]:
    """Return the compiles that attnforge plans for these limits."""
    request = Request(package=PACKAGE, gpus=("H100",), profile=profile, jobs=limits.slots, memory=limits.budget_bytes)
    return compiles(plan(machine, request))


# --- simulated


def simulated(profile: str, units: Sequence[Compile], limits: Limits, given: argparse.Namespace) -> list[Figure]:
    """Return the figures of the scheduler's packing, over rounds in which jobs take different times."""
    shares, of_found, reserved = [], [], []
    for number in range(given.rounds):
        factor = partial(random.Random(number).lognormvariate, 0.0, given.spread)
        actual = [unit.scaled(factor) for unit in units]
        result = simulate(units, actual, limits.slots, limits.budget_bytes)
        shares.append(ideal_seconds(actual, limits.slots, limits.budget_bytes) / result.seconds)
        found = found_seconds(actual, limits.slots, limits.budget_bytes, given.tries, number)
        of_found.append(found / result.seconds)
        reserved.append(result.reserved_bytes / limits.budget_bytes)
    return [
        Figure.of(f"{profile}, simulated: throughput, part of what no packing can beat", shares),
        Figure.of(f"{profile}, simulated: throughput, part of the best packing found", of_found),
        Figure.of(f"{profile}, simulated: most reserved, part of the budget", reserved),
    ]


# --- real


def real(
    profile: str, units: Sequence[Compile], limits: Limits, given: argparse.Namespace, folder: Path
) -> list[Figure]:
    """Run the jobs as processes through the engine and return what they held and how long they took."""
    small = Limits(limits.slots, int(limits.budget_bytes * given.scale))
    jobs = [Compile(unit.name, {label: _small(part, given) for label, part in unit.parts.items()}) for unit in units]
    predictions = write_graph(folder / "graph", jobs)
    ideal = ideal_seconds(jobs, small.slots, small.budget_bytes)
    say(f"{len(predictions)} processes; no packing of them takes less than {ideal:.0f} s")
    with Memory("hold", 0.05) as memory:
        began = time.monotonic()
        sampled = run_engine(folder, predictions, small)
        seconds = time.monotonic() - began
    what = f"{profile}, real processes"
    return [
        Figure.of(f"{what}: throughput, part of what no packing can beat", [ideal / seconds]),
        Figure.of(f"{what}: most held, part of the budget", [memory.peak_bytes / small.budget_bytes]),
        Figure.of(f"{what}: the same by the engine's samples", [sampled / small.budget_bytes]),
    ]


def _small(part: Part, given: argparse.Namespace) -> Part:
    peak = max(int(part.peak_bytes * given.scale), _LEAST_BYTES)
    return replace(part, seconds=part.seconds / given.speed, peak_bytes=peak)


def write_graph(folder: Path, units: Sequence[Compile]) -> dict[str, Prediction]:
    """Write a build.ninja with a process for each job; return the predictions by the names of their outputs."""
    folder.mkdir()
    python = shlex.join([sys.executable, "-I", "-S", str(_HOLD)])
    lines = [f"rule hold\n  command = {python} $bytes $seconds $out\n"]
    predictions = {}
    for number, unit in enumerate(units):
        for part in unit.parts.values():
            output = _output(number, part.label)
            needs = " ".join(_output(number, need) for need in part.needs)
            lines.append(f"build {output}: hold {needs}\n")
            lines.append(f"  bytes = {int(part.peak_bytes * _SHARE)}\n  seconds = {part.seconds:.3f}\n")
            predictions[output] = Prediction(part.seconds, part.peak_bytes)
    (folder / "build.ninja").write_text("".join(lines), encoding="utf-8")
    return predictions


def _output(number: int, label: str) -> str:
    return f"{number}-{label.replace(' ', '-')}"


def run_engine(folder: Path, predictions: dict[str, Prediction], limits: Limits) -> int:
    """Make the graph through the seat, as upstream's build does; return the most bytes held by the engine's samples."""

    def priced(graph: CompileGraph) -> CompileGraph:
        return graph.map(lambda unit: replace(unit, cost_key=Path(unit.output).name))

    with (
        (folder / "log.txt").open("w", encoding="utf-8") as log,
        Engine(
            folder=folder / "plan",
            slots=limits.slots,
            budget_bytes=limits.budget_bytes,
            passes=(priced,),
            costs=CostModel(folder / "costs.json", predictions),
            observe=ignore,
            log=log,
            temporary=folder / "temporary",
        ) as engine,
    ):
        ninja = [str(engine.seat_folder / "ninja"), "-v"]
        subprocess.run(ninja, cwd=folder / "graph", env=dict(os.environ), check=True, stdout=subprocess.DEVNULL)
        return engine.summary.peak_bytes


if __name__ == "__main__":
    main(sys.argv[1:])
