"""Which units are compiled in parts, so that none of them sets how long a build takes.

Where there are more slots than long units, the longest one ends last, and most slots idle meanwhile. In parts it takes
more CPU seconds: each part does again what its kernels have in common. So it is done only where one unit takes longer
than all the work spread over the slots, and only where the scheduler, simulated, ends earlier by it. As for groups, it
follows from figures of the recipe and from the number of slots, never from what a machine has learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attnforge.model.amounts import Cut
from attnforge.model.cost import DISPATCH, Prediction
from attnforge.model.host import Host
from attnforge.model.kernels import KernelName
from attnforge.model.parts import Parted
from attnforge.model.plan import Selection
from attnforge.model.recipe import Recipe
from attnforge.model.request import Request
from attnforge.resolve.decisions import Notes
from attnforge.resolve.estimate import memory_limit
from attnforge.resolve.grouping import ONE, at_once
from attnforge.resolve.predictions import compiled_as, feature_share, predict_parts, predict_steps
from attnforge.schedule.simulate import simulate
from attnforge.schedule.unit import chain_of, unit_of

_SUBJECT = "parts"

# By how much of its time a build has to be shorter: predictions are no better.
_WORTH = 0.03

_SHOWN = 3

Kernels = tuple[str, ...]
Steps = Mapping[str, Prediction]


def choose_parts(
    request: Request,
    host: Host,
    recipe: Recipe,
    selection: Selection,
    groups: Sequence[Sequence[str]],
    notes: Notes,
) -> tuple[Parted, ...]:
    """Return the units that are compiled in parts; none where that makes the build no shorter.

    It does not depend on the architectures: where there are several, each has its own parts at the same time.
    """
    if not selection.kept or not any(cost.cuts for cost in recipe.costs):
        return ()
    if request.no_parts:
        notes.decide(_SUBJECT, "none", "--no-parts: the kernels of each unit are compiled at once")
        return ()
    return _longest(request, host, recipe, selection, groups, notes)


def _longest(
    request: Request,
    host: Host,
    recipe: Recipe,
    selection: Selection,
    groups: Sequence[Sequence[str]],
    notes: Notes,
) -> tuple[Parted, ...]:
    """Return the longest units in parts, where the build then ends earlier."""
    slots, features = at_once(request, host), feature_share(recipe, selection)
    whole = _whole_units(recipe, selection, groups, features)
    fair = sum(step.seconds for steps in whole.values() for step in steps.values()) / slots
    divided = {
        kernels: found
        for kernels, steps in whole.items()
        if kernels and chain_of(steps) > fair
        if (found := _divided(recipe, selection, kernels, features, steps, fair))
    }
    if not divided:
        notes.decide(_SUBJECT, "none", f"no unit takes longer than all the work on {slots} slots, {fair:.0f} s")
        return ()
    budget = memory_limit(request, host)
    before = _seconds(whole, slots, budget)
    after = _seconds({**whole, **{kernels: steps for kernels, (_, steps) in divided.items()}}, slots, budget)
    if after > before * (1 - _WORTH):
        why = f"with {slots} slots the build would take {after:.0f} s instead of {before:.0f} s"
        notes.decide(_SUBJECT, "none", f"{why} with its longest units in parts, by the recipe's figures")
        return ()
    parted = [(name, cut) for kernels, (cut, _) in divided.items() for name in kernels]
    why = f"each takes longer than all the work on {slots} slots, {fair:.0f} s; so the build takes {after:.0f} s"
    notes.decide(
        _SUBJECT,
        f"in {_some([name for name, _ in parted])}",
        f"{why} for one architecture, by the recipe's figures",
        [("the kernels of each unit at once", f"{before:.0f} s")],
    )
    return tuple(Parted(unit=name, parts=tuple(cut.parts)) for name, cut in parted)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _whole_units(
    recipe: Recipe, selection: Selection, groups: Sequence[Sequence[str]], features: float
) -> dict[Kernels, Steps]:
    """Return the steps of each unit as it is compiled at once, by its kernels; the host's code has none."""
    found: dict[Kernels, Steps] = {}
    for kernels in compiled_as(groups, selection.kept):
        cost = recipe.cost(KernelName.parse(kernels[0]).kind)
        if cost is not None:
            found[kernels] = predict_steps(cost, kernels, features, ONE)
    dispatch = recipe.cost(DISPATCH)
    return found | ({(): {"": Prediction(dispatch.alone(1.0), dispatch.peak(1.0))}} if dispatch else {})


def _divided(
    recipe: Recipe, selection: Selection, kernels: Kernels, features: float, whole: Steps, fair: float
) -> tuple[Cut, Steps] | None:
    """Return the fewest parts of a unit that take no longer than is fair, else those that end first; None for none."""
    names = [KernelName.parse(kernel) for kernel in kernels]
    cost = recipe.cost(names[0].kind)
    if cost is None:
        return None
    left = {label: step for label, step in whole.items() if not label.startswith("cicc ")}
    found = [
        (cut, left | predict_parts(cost, cut, kernels, features, ONE))
        for cut in cost.cuts
        if all(cut.serves(name, selection.features) for name in names)
    ]
    enough = next((one for one in found if chain_of(one[1]) <= fair), None)
    best = enough or min(found, key=lambda one: chain_of(one[1]), default=None)
    return best if best and chain_of(best[1]) < chain_of(whole) else None


def _seconds(units: Mapping[Kernels, Steps], slots: int, budget_bytes: int) -> float:
    trials = [unit_of(str(number), steps) for number, steps in enumerate(units.values())]
    return simulate(trials, slots, budget_bytes).seconds
