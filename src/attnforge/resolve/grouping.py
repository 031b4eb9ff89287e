"""Which units are merged into one: a part of the plan, because it decides in which object a kernel is.

The first kernel of a unit costs most of its time in templates that all units instantiate; merged units instantiate them
once. But slots idle while one long unit compiles, and a compiler's time grows faster than its work. So the choice
depends only on how many units compile at once and on figures of the recipe: never on what a machine has learned, since
the same plan has to give the same bytes everywhere. It does not depend on the architectures either: a target with one
more shares what was compiled for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from attnforge.errors import RequestError
from attnforge.model.cost import DISPATCH, Prediction
from attnforge.model.host import Host
from attnforge.model.kernels import KernelName
from attnforge.model.plan import Selection
from attnforge.model.recipe import Recipe
from attnforge.model.request import Request
from attnforge.model.target import Architecture
from attnforge.model.versions import shortened
from attnforge.resolve.decisions import Notes
from attnforge.resolve.estimate import memory_limit, wall_seconds
from attnforge.resolve.predictions import feature_share, predict_steps, together
from attnforge.schedule.reservation import mean_reserved

AUTO, NONE = "auto", "none"

# Of choices that take about as long, the one that takes the fewest CPU seconds: predictions are no better than that.
TOLERANCE = 0.05

# How many times the memory of its largest unit a group may take. Units of several head dimensions share less, and the
# more they take, the fewer compile at once: what fits is taken where it is predicted to be faster.
GROWTH = (2.0, 1.25)

# Rounds over the kinds, each choosing for one kind while the others stay.
_ROUNDS = 2

ONE = (Architecture(major=9, minor=0),)
"""The architecture by which units are merged and divided, whichever the target has: the one of the recipes' figures."""

Kernels = tuple[str, ...]
Division = tuple[Kernels, ...]
"""The kernels of one kind, divided into units that are compiled."""

_Steps = Callable[[Kernels], tuple[Prediction, ...]]


@dataclass(frozen=True, slots=True)
class Divisions:
    """All that may be chosen between: for each kind its divisions by number of units.

    ``predict`` says what one unit takes for one architecture, ``reserve`` the bytes that are reserved for it on
    average; ``others`` are the CPU seconds of units that can't be merged and run in the same build.
    """

    kinds: Mapping[str, Mapping[int, Division]]
    predict: Callable[[Kernels], Prediction]
    reserve: Callable[[Kernels], float]
    others: tuple[float, ...] = ()

    @property
    def apart(self) -> dict[str, Division]:
        """Every unit on its own."""
        return {kind: choices[max(choices)] for kind, choices in self.kinds.items()}

    def seconds(self, chosen: Mapping[str, Division]) -> tuple[float, ...]:
        """Return the CPU seconds of each unit of a build."""
        return (*self.others, *(self.predict(unit).seconds for division in chosen.values() for unit in division))

    def bytes(self, chosen: Mapping[str, Division], slots: int) -> int:
        """Return what the largest units need that may compile at once: one at its peak, the others on average.

        Few are at their peak at the same time, and where one has to wait for another's, that is for seconds.
        """
        chosen_units = [unit for division in chosen.values() for unit in division]
        means = sorted(map(self.reserve, chosen_units), reverse=True)
        return int(sum(means[1:slots])) + max(self.predict(unit).peak_bytes for unit in chosen_units)


@dataclass(frozen=True, slots=True)
class _Choice:
    """What was chosen for so many units at once; ``seconds`` are those of each unit."""

    slots: int
    chosen: Mapping[str, Division]
    seconds: tuple[float, ...]

    @property
    def rank(self) -> tuple[float, float]:
        """Wall seconds, then CPU seconds: the least is best."""
        return wall_seconds(self.seconds, self.slots), sum(self.seconds)

    @property
    def groups(self) -> tuple[Kernels, ...]:
        """The units that have the kernels of several of upstream's."""
        return tuple(unit for kind in sorted(self.chosen) for unit in self.chosen[kind] if len(unit) > 1)

    def told(self) -> str:
        """Return what it takes, for people."""
        wall, total = self.rank
        return f"{wall:.0f} s with {self.slots} at once, {total:.0f} s of CPU"


def choose_groups(
    request: Request, host: Host, recipe: Recipe, selection: Selection, notes: Notes
) -> tuple[Kernels, ...]:
    """Return the kernels of each group of two or more; RequestError where ``groups`` is not understood."""
    wanted = _wanted(request.groups)
    if not selection.kept:
        return ()
    if wanted == 0:
        notes.decide("groups", "none", "--groups none: each of upstream's units is compiled on its own")
        return ()
    steps = _priced(recipe, selection)
    every = [divisions_of(recipe, selection, growth, steps) for growth in GROWTH]
    choice = _choice(every[0], wanted) if wanted else _best_here(every, request, host)
    why = f"--groups {wanted}" if wanted else _here(request, host)
    if choice is None or not choice.groups:
        cause = "merged units would not fit" if choice is None else "merging units would not make this build shorter"
        notes.decide("groups", "none", f"{why}; {cause}")
        return ()
    apart = every[0].apart
    notes.decide(
        "groups",
        f"{_count(apart)} units merged into {_count(choice.chosen)}",
        f"{why}; {choice.told()} for each architecture, by the recipe's figures",
        [("every unit on its own", _Choice(choice.slots, apart, every[0].seconds(apart)).told())],
    )
    return choice.groups


_DIGITS = 5
"""A number with as many digits is no number of compiles at once."""


def check_groups(text: str) -> None:
    """Raise RequestError where ``groups`` is not understood."""
    _wanted(text)


def _wanted(text: str) -> int | None:
    """Return how many units should compile at once: 0 for no merging, None for what the machine has."""
    word = text.strip().lower() or AUTO
    if word in (AUTO, NONE):
        return None if word == AUTO else 0
    if word.isdecimal() and len(word) < _DIGITS and int(word) > 0:
        return int(word)
    raise RequestError(
        f"--groups can't be {shortened(text)!r}",
        why="it says for how many compiles at once units are merged",
        hint="--groups auto, --groups none, or a number such as --groups 8",
    )


def _count(chosen: Mapping[str, Division]) -> int:
    return sum(map(len, chosen.values()))


def _choice(divisions: Divisions, slots: int) -> _Choice:
    chosen = choose(divisions, slots)
    return _Choice(slots, chosen, divisions.seconds(chosen))


def _best_here(every: Sequence[Divisions], request: Request, host: Host) -> _Choice | None:
    """Return the choice that is fastest on this machine, or None where its memory is too small for any.

    For a power of two, so that machines that are alike agree; by what their memory is and not by what is free of it.
    """
    most, limit = (request.jobs or host.cpus).bit_length() - 1, memory_limit(request, host)
    choices = [
        choice
        for slots in (1 << power for power in range(most, -1, -1))
        for divisions in every
        if divisions.bytes((choice := _choice(divisions, slots)).chosen, slots) <= limit
    ]
    return min(choices, key=lambda choice: choice.rank, default=None)


def at_once(request: Request, host: Host) -> int:
    """Return for how many compiles at once the units of a build are meant."""
    return _wanted(request.groups) or request.jobs or host.cpus


def _here(request: Request, host: Host) -> str:
    number = f"--jobs {request.jobs}" if request.jobs else f"{host.cpus} processor{'s' if host.cpus > 1 else ''}"
    return f"{number} and {memory_limit(request, host) / 1e9:.1f} GB for compilers"


# --- what may be chosen between


def _priced(recipe: Recipe, selection: Selection) -> _Steps:
    """Return a function that says what each step of one unit takes for one architecture; each unit is priced once."""
    features = feature_share(recipe, selection)

    @cache
    def steps(kernels: Kernels) -> tuple[Prediction, ...]:
        cost = recipe.cost(KernelName.parse(kernels[0]).kind)
        assert cost is not None
        return tuple(predict_steps(cost, kernels, features, ONE).values())

    return steps


def divisions_of(
    recipe: Recipe, selection: Selection, growth: float = GROWTH[0], priced: _Steps | None = None
) -> Divisions:
    """Return the divisions of the kernels that are kept. Kinds without figures stay as upstream has them.

    A group adds no more than ``merged_seconds`` to what its units share, and takes no more than ``growth`` times the
    memory of one of them.
    """
    steps, features = priced or _priced(recipe, selection), feature_share(recipe, selection)

    @cache
    def predict(kernels: Kernels) -> Prediction:
        return together(steps(kernels))

    kinds = {}
    for cost in sorted(recipe.costs, key=lambda cost: cost.kind):
        kernels = [kernel for kernel in selection.kept if KernelName.parse(kernel).kind == cost.kind]
        if kernels:
            most = max(int(cost.merged_seconds / cost.added(features)), 1) if cost.added(features) else 1
            kinds[cost.kind] = divide(kernels, predict, most, growth)
    dispatch = recipe.cost(DISPATCH)
    others = (dispatch.alone(1.0),) if dispatch else ()
    return Divisions(kinds, predict, cache(lambda kernels: mean_reserved(steps(kernels))), others)


def divide(
    kernels: Sequence[str], predict: Callable[[Kernels], Prediction], most: int, growth: float
) -> dict[int, Division]:
    """Return the best division into each possible number of units: its longest is as short as can be.

    Units of a kind are put in the order of head dimension, dtype and causal, so that neighbours share most, and
    divided between neighbours, ``most`` in a group.
    """
    ordered = tuple(sorted(set(kernels), key=KernelName.parse))
    ceiling = growth * max(predict((kernel,)).peak_bytes for kernel in ordered)
    spans = {}
    for start in range(len(ordered)):
        for end in range(start + 1, min(start + most, len(ordered)) + 1):
            found = predict(ordered[start:end])
            if end == start + 1 or found.peak_bytes <= ceiling:
                spans[start, end] = found.seconds
    return {
        number: tuple(ordered[start:end] for start, end in pairwise(cuts))
        for number, cuts in _cuts(len(ordered), spans)
    }


_Best = tuple[float, float, tuple[int, ...]]
"""The longest part, the sum of all, and where they are cut."""


def _cuts(count: int, spans: Mapping[tuple[int, int], float]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield each number of parts with the cuts that make the longest part shortest, then the sum least."""
    best: dict[int, _Best] = {0: (0.0, 0.0, (0,))}
    for number in range(1, count + 1):
        longer: dict[int, _Best] = {}
        for (start, end), seconds in spans.items():
            if start in best:
                longest, total, cuts = best[start]
                found = (max(longest, seconds), total + seconds, (*cuts, end))
                longer[end] = min(longer.get(end, found), found)
        best = longer
        if count in best:
            yield number, best[count][2]


# --- choosing


def choose(divisions: Divisions, slots: int) -> dict[str, Division]:
    """Return a division for each kind such that the build is short on so many slots.

    Of those that take about as long it is the one of fewest CPU seconds, and never one that takes longer than every
    unit on its own.
    """
    chosen = divisions.apart
    apart = wall_seconds(divisions.seconds(chosen), slots)
    for _ in range(_ROUNDS):
        for kind, choices in divisions.kinds.items():
            found = []
            for number, division in choices.items():
                seconds = divisions.seconds({**chosen, kind: division})
                found.append((wall_seconds(seconds, slots), sum(seconds), number))
            enough = min(min(found)[0] * (1 + TOLERANCE), apart)
            _, _, number = min((one for one in found if one[0] <= enough), key=lambda one: one[1:])
            chosen = {**chosen, kind: choices[number]}
    return chosen
