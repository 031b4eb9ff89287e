"""Times attnforge against upstream's own build on a sample of FlashAttention 2's units with all features, for an H100.

    python experiments/full.py [--kinds forward,split,backward] [--head-dims 64,128] [--dtypes fp16] [--rounds 1]

The sample is cut out of profile full: units of these kinds, head dimensions and dtypes, causal and not, and
flash_api.cpp. The sides are those of upstream.py; upstream's nvcc is started through experiments/metered.py, which
writes down what each unit takes (20 ms of CPU for each). attnforge says in its report what its units took; one that was
merged counts in equal parts for its members. From the units follows what all of upstream's would take on both sides.

forward is always in the sample. With the defaults 12 units: expect an hour on two processors.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from attnforge import Machine, plan
from attnforge.model.kernels import KernelName
from cases import PACKAGE, Case, add_options, case_of, prepare, words
from extrapolate import ASSUMPTIONS, by_kind, extrapolated, medians
from figures import Figure, Round, as_details, figures, in_turn, report
from measure import Run
from sides import SHARED_ROOMS, Ours, Upstream

KINDS = ("forward", "split", "backward")
OURS, UPSTREAM = "attnforge", "upstream"


def main(arguments: Sequence[str]) -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", type=words, default=KINDS, help=f"default {','.join(KINDS)}")
    add_options(parser, head_dims="64,128", dtypes="fp16", rounds=1)
    given = parser.parse_args(arguments)
    unknown = set(given.kinds) - set(KINDS)
    if unknown:
        parser.error(f"there are no units of kind {', '.join(sorted(unknown))}: {', '.join(KINDS)}")
    machine = Machine(os.environ)
    case = replace(case_of(given, machine, "full"), without=left_out(given.kinds))
    with tempfile.TemporaryDirectory(prefix="attnforge-bench-") as name:
        sample = Sample(machine, case, Path(name))
        rounds = in_turn({OURS: sample.ours, UPSTREAM: sample.upstream}, given.rounds)
    notes = [
        f"attnforge build {case}, against upstream's setup.py with the same kernels and macros",
        "CPU seconds of a unit of kernels: all that nvcc runs for it",
        ASSUMPTIONS,
    ]
    found = [*figures(rounds, OURS, UPSTREAM), *unit_figures(sample), *whole(sample, rounds, machine, case)]
    details = {"case": case.arguments(), "units": sample.units, "rounds": as_details(rounds)}
    print(report("full", found, notes, details, given.json))


def left_out(kinds: Sequence[str]) -> tuple[str, ...]:
    """Return the features whose units are not in the sample."""
    return tuple(kind for kind in ("backward", "split") if kind not in kinds)


class Sample:
    """Both sides, and what each unit took in each round."""

    def __init__(self, machine: Machine, case: Case, folder: Path) -> None:
        """Prepare both sides in ``folder``."""
        self.case = case
        self.units: dict[str, list[Mapping[str, float]]] = {OURS: [], UPSTREAM: []}
        self._upstream = Upstream(prepare(machine, case), folder / "upstream", jobs=case.jobs, metered=True)
        self._ours = Ours(folder / "cache", folder / "dist")
        self._ours.share(machine, *SHARED_ROOMS)

    def ours(self) -> Run:
        """Run attnforge's side, cold."""
        run = self._ours.cold(self.case)
        self.units[OURS].append(self._ours.compiled.kernel_seconds())
        return run

    def upstream(self) -> Run:
        """Run upstream's side."""
        run = self._upstream.run()
        self.units[UPSTREAM].append(self._upstream.kernel_seconds())
        return run


def unit_figures(sample: Sample) -> list[Figure]:
    """Return for each kind what a unit took on each side, on average, and the ratio."""
    found = []
    own, other = ([by_kind(one) for one in sample.units[side]] for side in (OURS, UPSTREAM))
    for kind in own[0]:
        count = sum(KernelName.parse(name).kind == kind for name in sample.units[OURS][0])
        found += [
            Figure.of(f"{kind}, CPU seconds of a unit, {UPSTREAM}", (one[kind] / count for one in other)),
            Figure.of(f"{kind}, CPU seconds of a unit, {OURS}", (one[kind] / count for one in own)),
            Figure.of(f"{kind}, ratio of CPU seconds", (a[kind] / b[kind] for a, b in zip(own, other, strict=True))),
        ]
    return found


@dataclass(frozen=True)
class Whole:
    """All units of upstream's on one side: CPU seconds in units of kernels, and in all else."""

    kernels: float
    rest: float

    @property
    def cpu(self) -> float:
        """CPU seconds of the build."""
        return self.kernels + self.rest


def whole(sample: Sample, rounds: Sequence[Round], machine: Machine, case: Case) -> list[Figure]:
    """Return the figures of profile full with all of its units that are of a measured kind."""
    everything = plan(machine, replace(Case(profile="full"), python=case.python, torch=case.torch).request())
    kinds = {KernelName.parse(name).kind for name in sample.units[OURS][0]}
    wanted = [name for name in everything.plan.selection.kept if KernelName.parse(name).kind in kinds]
    sides = {side: _whole(sample.units[side], [one[side] for one in rounds], wanted) for side in (OURS, UPSTREAM)}
    what = f"{PACKAGE}, all {len(wanted)} units of {', '.join(sorted(kinds))}, extrapolated"
    return [
        Figure.of(f"{what}: CPU seconds, {UPSTREAM}", [sides[UPSTREAM].cpu]),
        Figure.of(f"{what}: CPU seconds, {OURS}", [sides[OURS].cpu]),
        Figure.of(f"{what}: ratio", [sides[OURS].cpu / sides[UPSTREAM].cpu]),
    ]


def _whole(units: Sequence[Mapping[str, float]], runs: Sequence[Run], wanted: Sequence[str]) -> Whole:
    """Extrapolate one side; what it spent beside the units of kernels is there once, however many there are."""
    rest = statistics.median(run.cpu - sum(one.values()) for run, one in zip(runs, units, strict=True))
    return Whole(sum(extrapolated(medians(units), wanted).values()), rest)


if __name__ == "__main__":
    main(sys.argv[1:])
