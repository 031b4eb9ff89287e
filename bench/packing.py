"""The jobs of a build, simulated on attnforge's scheduler, and what an ideal packing of them takes."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from attnforge import Planned
from attnforge.compile.scheduler import Job, Scheduler
from attnforge.model.cost import DISPATCH, Prediction
from attnforge.resolve.estimate import feature_share, predict_steps, units

# What nvcc's steps read of one another (src/attnforge/compile/steps.py); device steps by their program.
_AFTER = {
    "cudafe++": ("preprocess",),
    "cicc": ("preprocess *",),
    "ptxas": ("cicc *",),
    "fatbinary": ("ptxas *",),
    "compile": ("cudafe++", "ptxas *", "fatbinary"),
}

# As in the engine: a look into the cache and nvcc --dryrun.
_OPEN = Prediction(0.2, 10**8)


@dataclass(frozen=True)
class Part:
    """One program of a compile; ``needs`` are labels of the same unit's parts."""

    label: str
    seconds: float
    peak_bytes: int
    needs: tuple[str, ...] = ()


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
        parts = {
            label: Part(label, part.seconds * factor(), part.peak_bytes, part.needs)
            for label, part in self.parts.items()
        }
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
    parts = {}
    for label in sorted(steps, key=_place):
        tool, _, code = label.partition(" ")
        wanted = [need.replace("*", code) if code else need for need in _AFTER.get(tool, ())]
        needs = tuple(other for other in steps for need in wanted if _matches(other, need))
        parts[label] = Part(label, steps[label].seconds, steps[label].peak_bytes, needs)
    return parts


def _matches(label: str, need: str) -> bool:
    return label.startswith(need[:-1]) if need.endswith("*") else label == need


def _place(label: str) -> int:
    return ("preprocess", *_AFTER).index(label.partition(" ")[0])


# --- simulated


@dataclass(frozen=True)
class Simulated:
    """What the scheduler made of it: seconds from start to end, and the most bytes that were reserved at once."""

    seconds: float
    reserved_bytes: int


def simulate(predicted: Sequence[Compile], actual: Sequence[Compile], slots: int, budget_bytes: int) -> Simulated:
    """Run units on the scheduler as the engine does: it goes by what is predicted, and jobs take what they take."""
    return _Simulation(predicted, actual, Scheduler(slots, budget_bytes)).run()


@dataclass
class _Simulation:
    predicted: Sequence[Compile]
    actual: Sequence[Compile]
    scheduler: Scheduler
    now: float = 0.0
    reserved: int = 0
    running: list[tuple[float, str]] = field(default_factory=list)

    def run(self) -> Simulated:
        self.scheduler.add(self._first(number, unit) for number, unit in enumerate(self.predicted))
        self._start()
        while self.running:
            self.now, job_id = heapq.heappop(self.running)
            number, _, label = job_id.partition(" ")
            if label == "open":
                self.scheduler.add(self._steps(int(number)))
            self.scheduler.finished(job_id)
            self._start()
        return Simulated(self.now, self.reserved)

    def _first(self, number: int, unit: Compile) -> Job:
        """A unit of several programs is opened first: only then its steps are known."""
        if len(unit.parts) > 1:
            return Job(f"{number} open", _OPEN.seconds, _OPEN.peak_bytes, tail=unit.seconds, rank=1)
        (part,) = unit.parts.values()
        return Job(f"{number} {part.label}", part.seconds, part.peak_bytes, rank=1)

    def _steps(self, number: int) -> list[Job]:
        unit = self.predicted[number]
        return [
            Job(
                f"{number} {part.label}",
                part.seconds,
                part.peak_bytes,
                frozenset(f"{number} {need}" for need in part.needs),
                unit.tail(part.label),
            )
            for part in unit.parts.values()
        ]

    def _start(self) -> None:
        if self.scheduler.waiting or self.scheduler.running:
            for job in self.scheduler.ready():
                heapq.heappush(self.running, (self.now + self._seconds(job.id), job.id))
        self.reserved = max(self.reserved, self.scheduler.reserved_bytes)

    def _seconds(self, job_id: str) -> float:
        number, _, label = job_id.partition(" ")
        return _OPEN.seconds if label == "open" else self.actual[int(number)].parts[label].seconds


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
