"""What a build is expected to take, from the recipe's figures and what was measured on this machine."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from attnforge.model.cost import DISPATCH, Prediction
from attnforge.model.host import Host
from attnforge.model.plan import BuildPlan, Estimate
from attnforge.model.recipe import Cost, Recipe
from attnforge.model.request import Request

_GIB = 2**30

# Kept free for upstream's own build, the page cache and whatever else runs: a tenth, between 1 and 8 GiB.
_RESERVE_SHARE, _RESERVE_MIN, _RESERVE_MAX = 0.1, 1 * _GIB, 8 * _GIB

# The second architecture of a unit repeats cicc and ptxas, not cudafe++ and the host compiler: 93 % (measured).
_EACH_FURTHER_ARCHITECTURE = 0.93


def memory_budget(request: Request, host: Host) -> int:
    """Return the bytes that compilers may use together: what is asked for, else what is free less a reserve."""
    if request.memory:
        return request.memory
    reserve = min(max(int(host.memory.limit_bytes * _RESERVE_SHARE), _RESERVE_MIN), _RESERVE_MAX)
    return max(host.memory.available_bytes - reserve, _GIB)


def cost_key(plan: BuildPlan, kernel: str) -> str:
    """Return the name under which units of these kernels are measured: alike in package, features, architectures."""
    features = "+".join(plan.selection.features) or "slim"
    codes = "+".join(architecture.digits for architecture in plan.target.architectures)
    return f"{plan.package} {plan.version} {kernel} {features} {codes} nvcc {plan.toolchain.nvcc}"


def priors(plan: BuildPlan, recipe: Recipe) -> dict[str, Prediction]:
    """Return what each unit is expected to take before anything was measured, by cost key."""
    costs = {cost.kind: cost for cost in recipe.costs}
    predictions = {}
    for kernel in plan.selection.kept:
        cost = costs.get(kernel.split("-")[0])
        if cost is not None:
            predictions[cost_key(plan, kernel)] = _predict(cost, plan, recipe)
    if DISPATCH in costs:
        dispatch = costs[DISPATCH]
        predictions[cost_key(plan, DISPATCH)] = Prediction(dispatch.slim_seconds, dispatch.slim_bytes)
    return predictions


def _predict(cost: Cost, plan: BuildPlan, recipe: Recipe) -> Prediction:
    # Features that have a macro multiply the instantiations of a unit; what part of them is there, so much of the way
    # from slim to full.
    optional = [name for name, feature in recipe.features.items() if feature.macro]
    share = sum(name in plan.selection.features for name in optional) / len(optional) if optional else 1.0
    seconds = cost.slim_seconds + share * (cost.full_seconds - cost.slim_seconds)
    peak = cost.slim_bytes + share * (cost.full_bytes - cost.slim_bytes)
    further = max(len(plan.target.architectures) - 1, 0)
    return Prediction(seconds * (1 + further * _EACH_FURTHER_ARCHITECTURE), int(peak))


def estimate(predictions: Iterable[Prediction], request: Request, host: Host) -> Estimate:
    """Return wall seconds, bytes and slots: longest first onto as many slots as the machine and its memory have."""
    jobs = sorted(predictions, key=lambda job: job.seconds, reverse=True)
    budget = memory_budget(request, host)
    slots = _slots(jobs, request.jobs or host.cpus, budget)
    ends = [0.0] * slots
    for job in jobs:
        heapq.heapreplace(ends, ends[0] + job.seconds)
    peak = sum(sorted((job.peak_bytes for job in jobs), reverse=True)[:slots])
    return Estimate(seconds=round(max(ends), 1), peak_bytes=peak, slots=slots)


def _slots(jobs: list[Prediction], wanted: int, budget: int) -> int:
    fitting, used = 0, 0
    for job in sorted(jobs, key=lambda job: job.peak_bytes, reverse=True):
        used += job.peak_bytes
        if used > budget or fitting == wanted:
            break
        fitting += 1
    return max(fitting, 1)
