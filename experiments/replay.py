"""Replays a measured build on attnforge's scheduler: how busy its slots are, and what is reserved and held.

    python experiments/replay.py tests/unit/recipes/fa2-full-sm90-costs.json --slots 16 32 --memory 110
    python experiments/replay.py tests/unit/recipes/fa2-full-sm90-run.json --slots 32 --memory 118.1

The file has CPU seconds and peak GB of each step of each unit (``units``: unit to step to the two). Where that was
measured, the GB that were held late and the part of the time before come after them. Steps that the file lacks, because
that build was cut off, are taken from the recipe; so is, where it is not there, when a compiler's memory falls and how
far. What compiling really took (``compile_seconds``, with upstream's setup) is shown where the file has it.
Each unit's steps are predicted by the recipe alone (``first build``) and by what the file has (``later build``).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from attnforge.compile.run.measured import Measured
from attnforge.model.cost import DISPATCH, Prediction
from attnforge.model.kernels import JOINT, KernelName
from attnforge.model.target import Architecture
from attnforge.recipes.catalogue import find_recipe
from attnforge.resolve.predictions import predict_steps
from attnforge.schedule.simulate import Simulated, Trial, simulate
from attnforge.schedule.unit import unit_of

GB = 10**9

# In files without what was held late, the peaks of these were taken before attnforge's own memory was left out of them.
_WRONG_PEAKS = ("preprocess", "cudafe++", "fatbinary", "compile", "ptxas")

# Seconds and peak alone.
_SHORT = 2

Steps = Mapping[str, Prediction]


def measured_units(path: Path, package: str, architecture: Architecture) -> list[tuple[str, Steps, Steps]]:
    """Return each unit with what the recipe predicts of its steps, and what they took."""
    recipe = find_recipe(package)
    found: list[tuple[str, Steps, Steps]] = []
    recorded = json.loads(path.read_text(encoding="utf-8"))["units"]
    sampled = any(len(step) > _SHORT for steps in recorded.values() for step in steps.values())
    for unit, steps in recorded.items():
        kernels = _kernels(unit)
        cost = recipe.cost(KernelName.parse(kernels[0]).kind)
        assert cost is not None, unit
        prior = predict_steps(cost, kernels, 1.0, (architecture,))
        took = {label: _took(prior[label], label, steps.get(label), sampled) for label in prior}
        # Merged units of both dtypes have one entry.
        copies = 2 if unit.endswith("x2") else 1
        found += [(f"{unit} {number}", prior, took) for number in range(copies)]
    host = recipe.cost(DISPATCH)
    if host is not None:
        whole = {"": Prediction(host.alone(1.0), host.peak(1.0))}
        found.append((DISPATCH, whole, whole))
    return found


def _kernels(unit: str) -> list[str]:
    if not unit.endswith("x2"):
        return unit.split(JOINT)
    return [f"{unit.removesuffix('x2')}-bf16", f"{unit.removesuffix('x2')}-bf16-causal"]


def _took(prior: Prediction, label: str, seen: list[float] | None, sampled: bool) -> Prediction:
    if seen is None:
        return prior
    seconds, peak = seen[0], int(seen[1] * GB)
    if sampled:
        late, early = seen[2:] or (None, 1.0)
        return Prediction(seconds, peak, None if late is None else int(late * GB), early or 1.0)
    if label.partition(" ")[0] in _WRONG_PEAKS:
        peak = prior.peak_bytes
    return replace(prior, seconds=seconds, peak_bytes=peak)


def replay(units: list[tuple[str, Steps, Steps]], slots: int, budget: int, *, known: bool) -> Simulated:
    """Run the units; ``known`` says whether what they took was measured before."""
    trials = []
    for name, prior, took in units:
        predicted = {label: _known(step) for label, step in took.items()} if known else prior
        trials.append(_taking(unit_of(name, predicted), name, took))
    return simulate(trials, slots, budget)


def _known(took: Prediction) -> Prediction:
    one = Measured().with_one(took.seconds, took.peak_bytes, took.late_bytes, took.early)
    return one.prediction()


def _taking(trial: Trial, name: str, took: Steps) -> Trial:
    label = trial.job.id.removeprefix(name).strip()
    opens = tuple(_taking(one, name, took) for one in trial.opens)
    return Trial(trial.job, took.get(label, trial.take), opens)


def line(what: str, found: Simulated, slots: int) -> str:
    """Return what came of a replay, for people."""
    until = found.last_begun
    return (
        f"{what:30} {found.seconds:7.0f} s   busy {found.busy(slots, until):6.1%} until the last unit at {until:.0f} s"
        f"   held {found.held_bytes / GB:5.1f} GB at most, reserved {found.reserved_bytes / GB:5.1f}"
    )


def main(arguments: list[str]) -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--package", default="flash-attn")
    parser.add_argument("--architecture", default="9.0")
    parser.add_argument("--slots", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--memory", type=float, default=110.0, help="budget in GB (10^9 bytes)")
    given = parser.parse_args(arguments)
    units = measured_units(given.file, given.package, Architecture.parse(given.architecture))
    total = sum(step.seconds for _, _, took in units for step in took.values())
    longest = max(sum(step.seconds for step in took.values()) for _, _, took in units)
    print(f"{len(units)} units, {total:.0f} s of CPU, the longest {longest:.0f} s")
    recorded = json.loads(given.file.read_text(encoding="utf-8"))
    if "compile_seconds" in recorded:
        print(f"it took {recorded['compile_seconds']:.0f} s with {recorded['slots']} slots")
    for slots in given.slots:
        print(f"{slots} slots: {total / slots:.0f} s if all were always busy")
        for what, known in (("first build", False), ("later build", True)):
            found = replay(units, slots, int(given.memory * GB), known=known)
            print(line(f"  {what}", found, slots))
        kept = [(name, _without_late(prior), took) for name, prior, took in units]
        print(line("  peaks reserved to the end", replay(kept, slots, int(given.memory * GB), known=False), slots))


def _without_late(steps: Steps) -> Steps:
    return {label: replace(step, late_bytes=None, early=1.0) for label, step in steps.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
