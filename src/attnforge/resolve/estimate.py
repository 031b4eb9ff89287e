"""What a build is expected to take, from the recipe's figures and what was measured on this machine."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from attnforge.model.cost import DISPATCH, Prediction, step_key
from attnforge.model.host import Host
from attnforge.model.plan import BuildPlan, Estimate, Selection
from attnforge.model.recipe import DEVICE_STEPS, HOST_STEPS, JOINT, Cost, KernelName, Recipe, compiled_for
from attnforge.model.request import Request
from attnforge.model.target import Architecture

_GIB = 2**30

# Kept free for upstream's own build, the page cache and whatever else runs: a tenth, between 1 and 8 GiB.
_RESERVE_SHARE, _RESERVE_MIN, _RESERVE_MAX = 0.1, 1 * _GIB, 8 * _GIB


def memory_budget(request: Request, host: Host) -> int:
    """Return the bytes that compilers may use together: what is asked for, else what is free less a reserve."""
    return request.memory or max(host.memory.available_bytes - _reserve(host), _GIB)


def memory_limit(request: Request, host: Host) -> int:
    """Return the bytes that compilers could ever use here, whatever else runs now: the same for machines alike."""
    return request.memory or max(host.memory.limit_bytes - _reserve(host), _GIB)


def _reserve(host: Host) -> int:
    return min(max(int(host.memory.limit_bytes * _RESERVE_SHARE), _RESERVE_MIN), _RESERVE_MAX)


# --- names


def cost_key(plan: BuildPlan, kernel: str) -> str:
    """Return the name under which units of these kernels are measured: alike in package, features, compiler.

    Of merged units it has the number for each kind and head dimension. Architectures are in the
    labels of steps: what was learned of one counts whichever others a target has.
    """
    features = "+".join(plan.selection.features) or "slim"
    return f"{plan.package} {plan.version} {_short(kernel)} {features} nvcc {plan.toolchain.nvcc}"


def _short(kernel: str) -> str:
    if JOINT not in kernel:
        return kernel
    names = map(KernelName.parse, kernel.split(JOINT))
    counts = Counter((name.kind, name.head_dim) for name in names)
    return JOINT.join(f"{kind}-hdim{head_dim}x{count}" for (kind, head_dim), count in sorted(counts.items()))


def units(plan: BuildPlan) -> tuple[tuple[str, ...], ...]:
    """Return the kernels of each unit that is compiled: the groups, then those that are in none."""
    grouped = {kernel for group in plan.groups for kernel in group}
    return (*plan.groups, *((kernel,) for kernel in plan.selection.kept if kernel not in grouped))


# --- predictions


def feature_share(recipe: Recipe, selection: Selection) -> float:
    """Return which part of the features is there that multiply the instantiations of a unit.

    Those are the ones that are dropped from kernels by a macro or setting and have no kernels of their own.
    """
    optional = [
        name
        for name, feature in recipe.features.items()
        if (feature.macro or feature.setting) and not feature.kinds and not feature.variants
    ]
    return sum(name in selection.features for name in optional) / len(optional) if optional else 1.0


def predict_steps(
    cost: Cost, kernels: Sequence[str], features: float, architectures: Sequence[Architecture]
) -> dict[str, Prediction]:
    """Return what each step takes, by label, of a unit with all of these kernels."""
    dims = len({KernelName.parse(kernel).head_dim for kernel in kernels})
    return _by_label(cost, len(kernels), dims, features, architectures)


def _by_label(
    cost: Cost, units: int, dims: int, features: float, architectures: Sequence[Architecture]
) -> dict[str, Prediction]:
    found = {
        step: Prediction(
            cost.seconds[step].of(units, dims, features),
            int(cost.bytes[step].of(units, dims, features)) if step in cost.bytes else 0,
        )
        for step in cost.seconds
    }
    host = {step: found[step] for step in HOST_STEPS if step in found}
    return host | {f"{step} {one.sm}": found[step] for one in architectures for step in DEVICE_STEPS if step in found}


def together(steps: Iterable[Prediction]) -> Prediction:
    """Return what steps take that run one after the other."""
    listed = list(steps)
    return Prediction(sum(step.seconds for step in listed), max(step.peak_bytes for step in listed))


def priors(plan: BuildPlan, recipe: Recipe) -> dict[str, Prediction]:
    """Return what each unit and each of its steps is expected to take before anything was measured, by key.

    Merged units are there as one and each on its own, which they are compiled as where merging fails.
    """
    predictions: dict[str, Prediction] = {}
    alone = ((kernel,) for kernel in plan.selection.kept)
    for kernels in (*plan.groups, *alone):
        predictions |= _keyed(cost_key(plan, JOINT.join(kernels)), _steps(plan, recipe, kernels))
    for name, steps in _named(plan, recipe).items():
        predictions |= _keyed(cost_key(plan, name), steps)
    return predictions | _dispatch(plan, recipe)


def _keyed(key: str, steps: Mapping[str, Prediction]) -> dict[str, Prediction]:
    """Return the steps of a unit by their keys, and the unit itself; nothing where nothing is known of it."""
    if not steps:
        return {}
    return {step_key(key, label): step for label, step in steps.items()} | {key: together(steps.values())}


def _named(plan: BuildPlan, recipe: Recipe) -> dict[str, dict[str, Prediction]]:
    """Return the steps of the units that the recipe knows by their file names alone, each for what it is compiled for.

    A unit that can be compiled for no GPU of the target is not there: upstream's build does not have it then.
    """
    target, limits = plan.target.architectures, recipe.unit_architectures
    found = ((name, cost, compiled_for(name, target, limits)) for cost in recipe.costs for name in cost.units)
    return {name: _by_label(cost, 1, 1, 1.0, compiled) for name, cost, compiled in found if compiled}


def _steps(plan: BuildPlan, recipe: Recipe, kernels: Sequence[str]) -> dict[str, Prediction]:
    cost = recipe.cost(KernelName.parse(kernels[0]).kind)
    if cost is None:
        return {}
    return predict_steps(cost, kernels, feature_share(recipe, plan.selection), plan.target.architectures)


def _dispatch(plan: BuildPlan, recipe: Recipe) -> dict[str, Prediction]:
    cost = recipe.cost(DISPATCH)
    return {cost_key(plan, DISPATCH): Prediction(cost.alone(1.0), cost.peak(1.0))} if cost else {}


def expected_jobs(plan: BuildPlan, recipe: Recipe, predictions: Mapping[str, Prediction]) -> Iterator[Prediction]:
    """Yield what has to run one after the other: for each unit its host steps with the first architecture, then the
    device steps of each further architecture, which need not wait for these. A universal wheel's host code is compiled
    for each pair.
    """
    known = {JOINT.join(kernels): _steps(plan, recipe, kernels) for kernels in units(plan)}
    for name, steps in (known | _named(plan, recipe)).items():
        chains: dict[str, list[Prediction]] = {}
        first = next(filter(None, (label.partition(" ")[2] for label in steps)), "")
        for label in steps:
            code = label.partition(" ")[2] or first
            chains.setdefault(code, []).append(predictions[step_key(cost_key(plan, name), label)])
        yield from map(together, chains.values())
    host_code = [predictions[key] for key in _dispatch(plan, recipe)]
    yield from host_code * max(len(plan.pairs), 1)


# --- a schedule


def wall_seconds(seconds: Iterable[float], slots: int) -> float:
    """Return how long jobs take, longest first onto so many slots."""
    ends = [0.0] * slots
    for one in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + one)
    return max(ends)


def estimate(predictions: Iterable[Prediction], request: Request, host: Host) -> Estimate:
    """Return wall seconds, bytes and slots: longest first onto as many slots as the machine and its memory have."""
    jobs = list(predictions)
    slots = _slots(jobs, request.jobs or host.cpus, memory_budget(request, host))
    peak = sum(sorted((job.peak_bytes for job in jobs), reverse=True)[:slots])
    seconds = wall_seconds((job.seconds for job in jobs), slots)
    return Estimate(seconds=round(seconds, 1), peak_bytes=peak, slots=slots)


def _slots(jobs: list[Prediction], wanted: int, budget: int) -> int:
    fitting, used = 0, 0
    for job in sorted(jobs, key=lambda job: job.peak_bytes, reverse=True):
        used += job.peak_bytes
        if used > budget or fitting == wanted:
            break
        fitting += 1
    return max(fitting, 1)
