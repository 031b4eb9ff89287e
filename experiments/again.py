"""Measures what attnforge repeats when FlashAttention 2 is built again, elsewhere or for another target.

    python experiments/again.py [--head-dims 64,128] [--parts folder,python,torch,gpus] [--rounds 1]

folder   built cold; then the same in another cache folder with a virtual environment made anew, where a shared store
         (a folder) is all that both have: nothing else of the first build can be reached
python   then, there, for another Python
torch    then, there, for another PyTorch
gpus     H100 and L40S cold; and elsewhere H100 cold, then H100 and L40S

Profile diffusion. Each ratio is that of the CPU seconds of the whole `attnforge build` (setup.py, link, packing and
audit in it), and of compilers alone, to the cold build of the same round. What is counted as a run of cicc or ptxas is
what attnforge's report says. Making environments and fetching packages is not counted: it is done before.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from attnforge import Machine
from cases import Case, add_options, case_of, clean_environ, elsewhere, prepare, words
from figures import Figure, report
from measure import Run, say
from sides import SHARED_ROOMS, Compiled, Ours

PARTS = ("folder", "python", "torch", "gpus")
GPUS = ("H100", "L40S")

_H100 = "sm_90"


@dataclass(frozen=True)
class Step:
    """One build: what it was, what it took, what attnforge says of it, and the cold build that it is held against."""

    what: str
    run: Run
    compiled: Compiled
    cold: Step | None = None

    def quantities(self) -> dict[str, float]:
        """Return what is reported of this build, by name."""
        found: dict[str, float] = {
            "CPU seconds": self.run.cpu,
            "CPU seconds of compilers": self.compiled.cpu_seconds,
            "runs of cicc": self.compiled.count("cicc"),
            "runs of ptxas": self.compiled.count("ptxas"),
            f"runs of cicc for {_H100}": self.compiled.count("cicc", _H100),
            f"runs of ptxas for {_H100}": self.compiled.count("ptxas", _H100),
        }
        if self.cold:
            found["ratio to cold, CPU seconds"] = self.run.cpu / self.cold.run.cpu
            found["ratio to cold, compilers"] = self.compiled.cpu_seconds / self.cold.compiled.cpu_seconds
        return found

    def details(self) -> dict[str, Any]:
        """Return the build for JSON."""
        return {"what": self.what, **asdict(self.run), "steps": self.compiled.steps, "ran": self.compiled.ran}


def figures_of(same: Sequence[Step]) -> list[Figure]:
    """Return the figures of one build over all rounds."""
    quantities = [step.quantities() for step in same]
    return [Figure.of(f"{same[0].what}: {name}", (one[name] for one in quantities)) for name in quantities[0]]


def main(arguments: Sequence[str]) -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=words, default=PARTS, help=f"default {','.join(PARTS)}")
    parser.add_argument("--other-python", default="", help="default 3.11, or 3.12 where --python is 3.11")
    parser.add_argument("--other-torch", default="2.12.1", help="default 2.12.1")
    add_options(parser, head_dims="64,128", dtypes="fp16,bf16", rounds=1)
    given = parser.parse_args(arguments)
    if set(given.parts) - set(PARTS):
        parser.error(f"parts are {', '.join(PARTS)}")
    machine = Machine(os.environ)
    case = case_of(given, machine)
    others = {
        "python": replace(case, python=given.other_python or ("3.12" if case.python == "3.11" else "3.11")),
        "torch": replace(case, torch=given.other_torch),
    }
    with tempfile.TemporaryDirectory(prefix="attnforge-bench-") as name:
        rounds = [
            steps_of(machine, case, others, given.parts, Path(name) / str(number)) for number in range(given.rounds)
        ]
    found = [figure for same in zip(*rounds, strict=True) for figure in figures_of(same)]
    notes = [
        f"attnforge build {case}; a ratio is to the cold build of the same round",
        "CPU seconds are those of the whole command; making environments and fetching is not in them",
    ]
    details = {"case": case.arguments(), "rounds": [[step.details() for step in steps] for steps in rounds]}
    print(report("again", found, notes, details, given.json))


def steps_of(machine: Machine, case: Case, others: dict[str, Case], parts: Sequence[str], folder: Path) -> list[Step]:
    """Run the builds of one round."""
    prepare(machine, case)
    steps = []
    if {"folder", "python", "torch"}.intersection(parts):
        steps += repeated(machine, case, {part: others[part] for part in others if part in parts}, folder / "same")
    if "gpus" in parts:
        steps += more_gpus(machine, case, folder / "gpus")
    shutil.rmtree(folder, ignore_errors=True)
    return steps


def repeated(machine: Machine, case: Case, others: dict[str, Case], folder: Path) -> list[Step]:
    """Build cold; then elsewhere with the store of that build: the same, and for other targets."""
    store = f"file://{folder / 'store'}"
    first = fresh(machine, folder / "first", store)
    cold = step(first, "cold", case)
    second = with_new_environments(machine, folder / "second", store, [case, *others.values()])
    found = [cold, step(second, "another folder and environment", case, cold)]
    return [
        *found,
        *(step(second, f"then another {part} ({_named(part, other)})", other, cold) for part, other in others.items()),
    ]


def _named(part: str, case: Case) -> str:
    return case.python if part == "python" else case.torch


def more_gpus(machine: Machine, case: Case, folder: Path) -> list[Step]:
    """Build for both GPUs cold; then elsewhere for the first, and for both."""
    both = replace(case, gpus=GPUS)
    prepare(machine, both)
    cold = step(fresh(machine, folder / "cold"), f"{' and '.join(GPUS)} cold", both)
    ours = fresh(machine, folder / "more")
    one = step(ours, f"{GPUS[0]} cold", case)
    more = step(ours, f"then {' and '.join(GPUS)}", both, cold)
    run = Run(one.run.cpu + more.run.cpu, one.run.wall + more.run.wall, max(one.run.peak_bytes, more.run.peak_bytes))
    return [cold, one, more, Step("one after the other", run, one.compiled.plus(more.compiled), cold)]


def step(ours: Ours, what: str, case: Case, cold: Step | None = None) -> Step:
    """Build and say so."""
    found = Step(what, ours.build(case), ours.compiled, cold)
    say(f"{what}: {found.run}, cicc {found.compiled.count('cicc')}, ptxas {found.compiled.count('ptxas')}")
    return found


def fresh(machine: Machine, folder: Path, store: str = "") -> Ours:
    """Return a side with an empty cache folder, but for packages, toolchains and environments of this machine."""
    ours = Ours(folder / "cache", folder / "dist", store)
    ours.share(machine, *SHARED_ROOMS)
    return ours


def with_new_environments(machine: Machine, folder: Path, store: str, cases: Sequence[Case]) -> Ours:
    """Return a side with an empty cache folder and environments made anew in it."""
    ours = Ours(folder / "cache", folder / "dist", store)
    ours.share(machine, *(room for room in SHARED_ROOMS if room != "environments"))
    there = elsewhere(ours.cache, clean_environ())
    began = time.monotonic()
    for case in cases:
        prepare(there, case)
    say(f"{len(cases)} environments made in {time.monotonic() - began:.0f} s, which is not counted")
    return ours


if __name__ == "__main__":
    main(sys.argv[1:])
