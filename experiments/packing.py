"""The jobs of a build, simulated on attnforge's scheduler, and what an ideal packing of them takes."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from attnforge import Planned
from attnforge.model.cost import DISPATCH, Prediction
from attnforge.resolve.predictions import feature_share, predict_steps, units
from attnforge.schedule.simulate import Simulated, Trial
from attnforge.schedule.simulate import simulate as on_scheduler
from attnforge.schedule.unit import needs_of, tails_of, unit_of


@dataclass(frozen=True)
class Part:
    """One program of a compile; ``needs`` are labels of the same unit's parts."""

    label: str
    seconds: float
    peak_bytes: int
    needs: tuple[str, ...] = ()
    late_bytes: int | None = None
    early: float = 1.0

    @property
    def prediction(self) -> Prediction:
        """What it takes, without what it needs."""
        return Prediction(self.seconds, self.peak_bytes, self.late_bytes, self.early)


@dataclass(frozen=True)
class Compile:
    """A unit: its parts by label, in an order in which they can run."""

    name: str
    parts: Mapping[str, Part]

    @property
    def seconds(self) -> float:
        """CPU seconds of all parts."""
        return sum(part.seconds for part in self.parts.values())

    def tail(self, label: str) -> float:
        """Return the seconds of the longest chain of parts after one."""
        after = [part for part in self.parts.values() if label in part.needs]
        return max((part.seconds + self.tail(part.label) for part in after), default=0.0)

    def longest(self) -> float:
        """Return the seconds of the longest chain of parts."""
        return max(part.seconds + self.tail(part.label) for part in self.parts.values())

    def scaled(self, factor: Callable[[], float]) -> Compile:
        """Return the unit with the seconds of each part multiplied."""
        parts = {label: replace(part, seconds=part.seconds * factor()) for label, part in self.parts.items()}
        return Compile(self.name, parts)


def compiles(planned: Planned) -> list[Compile]:
    """Return the units that a plan compiles, with what the recipe says that their steps take."""
    recipe, plan = planned.located.recipe, planned.plan
    share = feature_share(recipe, plan.selection)
    found = []
    for kernels in units(plan):
        cost = recipe.cost(kernels[0].split("-hdim")[0])
        assert cost is not None
        steps = predict_steps(cost, kernels, share, plan.target.architectures)
        found.append(Compile(" ".join(kernels), _parts(steps)))
    dispatch = recipe.cost(DISPATCH)
    if dispatch is not None:
        whole = Part(DISPATCH, dispatch.alone(1.0), dispatch.peak(1.0))
        found.append(Compile(DISPATCH, {DISPATCH: whole}))
    return found


def _parts(steps: Mapping[str, Prediction]) -> dict[str, Part]:
    tails = tails_of(steps)
    ordered = sorted(steps, key=lambda label: -tails[label])
    return {
        label: Part(
            label,
            steps[label].seconds,
            steps[label].peak_bytes,
            needs_of(label, steps),
            steps[label].late_bytes,
            steps[label].early,
        )
        for label in ordered
    }


# --- simulated


def simulate(predicted: Sequence[Compile], actual: Sequence[Compile], slots: int, budget_bytes: int) -> Simulated:
    """Run units on the scheduler as the engine does: it goes by what is predicted, and jobs take what they take."""
    takes = {
        f"{number} {label}".rstrip(): part.prediction
        for number, unit in enumerate(actual)
        for label, part in (unit.parts if len(unit.parts) > 1 else {"": next(iter(unit.parts.values()))}).items()
    }
    trials = [unit_of(str(number), _predictions(unit)) for number, unit in enumerate(predicted)]
    return on_scheduler([_taking(trial, takes) for trial in trials], slots, budget_bytes)


def _predictions(unit: Compile) -> dict[str, Prediction]:
    return {label: part.prediction for label, part in unit.parts.items()}


def _taking(trial: Trial, takes: Mapping[str, Prediction]) -> Trial:
    opens = tuple(_taking(one, takes) for one in trial.opens)
    return Trial(trial.job, takes.get(trial.job.id, trial.take), opens)


# --- ideal


def found_seconds(units_: Sequence[Compile], slots: int, budget_bytes: int, tries: int, seed: int = 0) -> float:
    """Return the time of the best packing that a random search finds; the ideal is no longer than that.

    The search knows what each job really takes, and all jobs from the start. Each try gives jobs an order, by the work
    that waits for them or by the memory that they hold, more or less disturbed, and starts whatever fits first.
    """
    noise = random.Random(seed)
    best = math.inf
    for number in range(tries):
        disturbance, held = noise.uniform(0.0, 0.6), number % 2
        order = {
            f"{at} {part.label}": (part.seconds + unit.tail(part.label))
            * (part.peak_bytes / budget_bytes) ** held
            * noise.lognormvariate(0.0, disturbance)
            for at, unit in enumerate(units_)
            for part in unit.parts.values()
        }
        best = min(best, _listed(units_, order, slots, budget_bytes))
    return best


def _listed(units_: Sequence[Compile], order: Mapping[str, float], slots: int, budget_bytes: int) -> float:
    """Return the time of a list schedule: when a job ends, those that are ready start in order, as far as they fit."""
    parts = {f"{at} {part.label}": part for at, unit in enumerate(units_) for part in unit.parts.values()}
    needs = {job: {f"{job.partition(' ')[0]} {need}" for need in part.needs} for job, part in parts.items()}
    waiting = sorted(parts, key=lambda job: -order[job])
    running: list[tuple[float, str]] = []
    done: set[str] = set()
    now, free = 0.0, budget_bytes
    while waiting or running:
        for job in tuple(waiting):
            size = min(parts[job].peak_bytes, budget_bytes)
            if len(running) < slots and size <= free and needs[job] <= done:
                waiting.remove(job)
                free -= size
                heapq.heappush(running, (now + parts[job].seconds, job))
        now, job = heapq.heappop(running)
        free += min(parts[job].peak_bytes, budget_bytes)
        done.add(job)
    return now


def ideal_seconds(units_: Sequence[Compile], slots: int, budget_bytes: int) -> float:
    """Return a time that no packing of these jobs can beat: the largest of several lower bounds.

    They are the longest chain, the work spread over the slots, and the memory held over time spread over the budget.
    The last is sharpened by dual feasible functions: however sizes are replaced by one of them, what fits together
    still fits (Fekete and Schepers, "New classes of fast lower bounds for bin packing problems", 2001).
    """
    parts = [part for unit in units_ for part in unit.parts.values()]
    longest = max(unit.longest() for unit in units_)
    held = max(
        math.fsum(part.seconds * function(min(part.peak_bytes / budget_bytes, 1.0)) for part in parts)
        for function in dual_feasible({part.peak_bytes / budget_bytes for part in parts}, slots)
    )
    return max(longest, sum(part.seconds for part in parts) / slots, held)


Function = Callable[[float], float]
"""Replaces a job's share of the budget."""


def dual_feasible(sizes: Iterable[float], most: int) -> list[Function]:
    """Return functions f on [0, 1] such that shares with a sum of at most 1 are replaced by such as well.

    One leaves sizes as they are up to a threshold at each end, one rounds to multiples of 1/k, for k to ``most``.
    """
    thresholds = [0.0, *(size for size in sizes if size <= 0.5)]
    return [*(_cut(threshold) for threshold in thresholds), *(_rounded(k) for k in range(1, most + 1))]


def _cut(threshold: float) -> Function:
    """Sizes below the threshold count nothing; those that leave less than it beside them count as all."""
    return lambda size: 1.0 if size > 1 - threshold else 0.0 if size < threshold else size


def _rounded(k: int) -> Function:
    def function(size: float) -> float:
        scaled = (k + 1) * size
        return size if math.isclose(scaled, round(scaled)) else math.floor(scaled) / k

    return function
