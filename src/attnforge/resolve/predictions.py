"""What the units of a plan, and their steps, are expected to take, by the recipe's figures. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from attnforge.model.amounts import DEVICE_STEPS, HOST_STEPS, Amount, Cost, Cut, Step
from attnforge.model.cost import DISPATCH, Prediction, step_key
from attnforge.model.kernels import JOINT, KernelName
from attnforge.model.parts import part_labels
from attnforge.model.plan import BuildPlan, Selection
from attnforge.model.recipe import Recipe
from attnforge.model.release import compiled_for
from attnforge.model.target import Architecture

# An amount, of an architecture (``80``) or of the host (""), in seconds or bytes.
_Measure = Callable[[Amount, str], float]


def cost_key(plan: BuildPlan, kernel: str) -> str:
    """Return the name under which units of these kernels are measured: alike in package, features, compiler.

    Of merged units it has the number for each kind and head dimension, also of values. Architectures are in the
    labels of steps: what was learned of one counts whichever others a target has.
    """
    features = "+".join(plan.selection.features) or "slim"
    return f"{plan.package} {plan.version} {_short(kernel)} {features} nvcc {plan.toolchain.nvcc}"


def _short(kernel: str) -> str:
    if JOINT not in kernel:
        return kernel
    names = map(KernelName.parse, kernel.split(JOINT))
    counts = Counter((name.kind, name.head_dim, name.dims) for name in names)
    return JOINT.join(f"{kind}-hdim{dims}x{count}" for (kind, _, dims), count in sorted(counts.items()))


def units(plan: BuildPlan) -> tuple[tuple[str, ...], ...]:
    """Return the kernels of each unit that is compiled: the groups, then those that are in none."""
    return compiled_as(plan.groups, plan.selection.kept)


def compiled_as(groups: Iterable[Sequence[str]], kept: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return the kernels of each unit, of these groups and of the kernels that are kept."""
    merged = tuple(map(tuple, groups))
    grouped = {kernel for group in merged for kernel in group}
    return (*merged, *((kernel,) for kernel in kept if kernel not in grouped))


def feature_share(recipe: Recipe, selection: Selection) -> float:
    """Return which part of the features is there that multiply the instantiations of a unit.

    Those are the ones that are dropped from kernels by a macro or setting and have no separate kernels.
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
    names = [KernelName.parse(kernel) for kernel in kernels]
    return _by_label(cost, lambda amount, code: amount.of(names, features, code), architectures)


def _by_label(cost: Cost, measure: _Measure, architectures: Sequence[Architecture]) -> dict[str, Prediction]:
    """Return each step by its label; an amount is measured for an architecture, and for the host without one ("")."""
    found: dict[str, Prediction] = {step: _step(cost, step, measure, "") for step in HOST_STEPS if step in cost.seconds}
    for one in architectures:
        device = (step for step in DEVICE_STEPS if step in cost.seconds)
        found |= {f"{step} {one.sm}": _step(cost, step, measure, one.digits) for step in device}
    return found


def _step(cost: Cost, step: Step, measure: _Measure, code: str) -> Prediction:
    seconds = measure(cost.seconds[step], code)
    peak = int(measure(cost.bytes[step], code)) if step in cost.bytes else 0
    if step not in cost.late or not seconds:
        return Prediction(seconds, peak)
    return Prediction(seconds, peak, int(measure(cost.late[step], code)), min(cost.seconds[step].shared / seconds, 1.0))


def predict_parts(
    cost: Cost, cut: Cut, kernels: Sequence[str], features: float, architectures: Sequence[Architecture]
) -> dict[str, Prediction]:
    """Return what the steps of a unit's parts take, by label, besides those of the whole unit.

    Each part does again what its kernels have in common, and may need as much memory as the whole.
    """
    names = [KernelName.parse(kernel) for kernel in kernels]
    common, count = cost.seconds["cicc"].common(names), len(cut.parts)
    steps = predict_steps(cost, kernels, features, architectures)
    found: dict[str, Prediction] = {}
    for one in architectures:
        preprocess, whole = steps[f"preprocess {one.sm}"], steps[f"cicc {one.sm}"]
        each = [Prediction(cost.index_seconds, cost.index_bytes)]
        for share in cut.parts.values():
            seconds = common + share * max(whole.seconds - common, 0.0)
            each.append(replace(whole, seconds=seconds, early=min(common / seconds, 1.0) if seconds else 1.0))
        found |= dict.fromkeys(part_labels(f"preprocess {one.sm}", count), preprocess)
        found |= dict(zip(part_labels(f"cicc {one.sm}", count), each, strict=True))
    return found


def cut_of(plan: BuildPlan, recipe: Recipe, kernels: Sequence[str]) -> tuple[Cost, Cut] | None:
    """Return how a unit is divided, None where its kernels are compiled at once."""
    parts, cost = _parts_of(plan, kernels), recipe.cost(KernelName.parse(kernels[0]).kind)
    if cost is None or not parts:
        return None
    return next(((cost, cut) for cut in cost.cuts if tuple(cut.parts) == parts), None)


def _parts_of(plan: BuildPlan, kernels: Sequence[str]) -> tuple[str, ...]:
    """Return the parts in which a unit's kernels are compiled, none for at once; of merged ones, those of all."""
    parts = {one.unit: one.parts for one in plan.parts}
    each = {parts.get(kernel, ()) for kernel in kernels}
    return each.pop() if len(each) == 1 else ()


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
        key = cost_key(plan, JOINT.join(kernels))
        predictions |= _keyed(key, _steps(plan, recipe, kernels))
        predictions |= {step_key(key, label): step for label, step in _part_steps(plan, recipe, kernels).items()}
    for name, steps in _named(plan, recipe).items():
        predictions |= _keyed(cost_key(plan, name), steps)
    return predictions | _dispatch(plan, recipe)


def _keyed(key: str, steps: Mapping[str, Prediction]) -> dict[str, Prediction]:
    """Return the steps of a unit by their keys, and the unit itself; nothing where nothing is known of it."""
    if not steps:
        return {}
    return {step_key(key, label): step for label, step in steps.items()} | {key: together(steps.values())}


def _named(plan: BuildPlan, recipe: Recipe) -> dict[str, dict[str, Prediction]]:
    """Return the steps of the units that the recipe knows only by their file names, each for what it is compiled for.

    A unit that can be compiled for no GPU of the target is not there: upstream's build does not have it then.
    """
    target, limits = plan.target.architectures, recipe.unit_architectures
    found = ((name, cost, compiled_for(name, target, limits)) for cost in recipe.costs for name in cost.units)
    return {name: _by_label(cost, _alone, compiled) for name, cost, compiled in found if compiled}


def _alone(amount: Amount, code: str) -> float:
    return amount.alone(1.0)


def _steps(plan: BuildPlan, recipe: Recipe, kernels: Sequence[str]) -> dict[str, Prediction]:
    cost = recipe.cost(KernelName.parse(kernels[0]).kind)
    if cost is None:
        return {}
    return predict_steps(cost, kernels, feature_share(recipe, plan.selection), plan.target.architectures)


def _part_steps(plan: BuildPlan, recipe: Recipe, kernels: Sequence[str]) -> dict[str, Prediction]:
    found = cut_of(plan, recipe, kernels)
    if found is None:
        return {}
    name = JOINT.join(kernels)
    own = [one for one in plan.target.architectures if not _is_shared(plan, name, f"cicc {one.sm}")]
    return predict_parts(*found, kernels, feature_share(recipe, plan.selection), own)


def _dispatch(plan: BuildPlan, recipe: Recipe) -> dict[str, Prediction]:
    cost = recipe.cost(DISPATCH)
    return {cost_key(plan, DISPATCH): Prediction(cost.alone(1.0), cost.peak(1.0))} if cost else {}


def expected_units(
    plan: BuildPlan, recipe: Recipe, predictions: Mapping[str, Prediction], made: Made | None = None
) -> Iterator[dict[str, Prediction]]:
    """Yield the steps of each unit that is compiled, by their labels; those that were ``made`` before are not there.

    A unit that one command makes has one step, "". A universal wheel's host code is compiled for each pair.
    """
    there = made or Made()
    known = {
        JOINT.join(kernels): _steps(plan, recipe, kernels) | _part_steps(plan, recipe, kernels)
        for kernels in units(plan)
    }
    for name, steps in (known | _named(plan, recipe)).items():
        if steps and not there.has(name, recipe):
            left = (label for label in steps if not follows(plan, name, label))
            yield {label: predictions[step_key(cost_key(plan, name), label)] for label in left}
    host_code = [{"": predictions[key]} for key in _dispatch(plan, recipe)]
    pairs = max(len(plan.pairs), 1)
    yield from host_code * (pairs - 1 if there.has(DISPATCH, recipe) else pairs)


def follows(plan: BuildPlan, name: str, label: str) -> bool:
    """Say whether a step of a unit is not run because its output follows from another architecture's, or its parts'."""
    is_cicc = any(label == f"cicc {one.sm}" for one in plan.target.architectures)
    return is_cicc and (_is_shared(plan, name, label) or bool(_parts_of(plan, name.split(JOINT))))


def _is_shared(plan: BuildPlan, name: str, label: str) -> bool:
    members = set(name.split(JOINT))
    return any(label == f"cicc sm_{one.code}" and members <= set(one.units) for one in plan.shared)


@dataclass(frozen=True, slots=True)
class Made:
    """What earlier builds of a plan left: the file names of the ``sources`` whose objects are stored, and a wheel."""

    sources: frozenset[str] = frozenset()
    wheel: bool = False

    def has(self, name: str, recipe: Recipe) -> bool:
        """Say whether the object of a unit is there: one of kernels, of a group (``a+b``), of host code, of a file."""
        first, *others = name.split(JOINT)
        if others:
            # As compile.passes.group names the source of merged units.
            return any(source.startswith(f"{first}-and-{len(others)}-more-") for source in self.sources)
        kernels = recipe.kernels
        if name == DISPATCH:
            return kernels is not None and kernels.dispatch in self.sources
        return name in self.sources or any(
            kernels is not None and (match := re.fullmatch(kernels.pattern, source)) and kernels.named(match) == name
            for source in self.sources
        )
