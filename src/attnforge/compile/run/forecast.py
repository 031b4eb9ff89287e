"""What a unit is expected to take before its steps are known."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from attnforge.model.amounts import DEVICE_STEPS, HOST_STEPS
from attnforge.model.cost import Prediction
from attnforge.model.graph import Unit
from attnforge.model.parts import part_labels
from attnforge.schedule.unit import length_of

FOLLOWS = Prediction(0.0, 0)
"""What a step takes whose output follows from others'."""

_CODE = re.compile(r"(?:^|,)code=(?:\[)?(sm_\w+)")
_CICC = re.compile(r"cicc sm_\w+")

# The programs that run once for each part of a unit.
_PARTED = ("preprocess", "cicc")


class Costs(Protocol):
    """What predicts a step of a unit by its label; "" is the whole unit, made by one command."""

    def predict(self, unit: Unit, label: str = "") -> Prediction:
        """Return what it is expected to take."""
        ...

    def measured(self, unit: Unit, label: str = "") -> Prediction | None:
        """Return the same where it was measured; None where it never was."""
        ...


def codes(argv: Sequence[str]) -> tuple[str, ...]:
    """Return the architectures of an nvcc call (``sm_90``), as far as its ``-gencode`` options tell."""
    return tuple(dict.fromkeys(match[1] for word in argv if (match := _CODE.search(word))))


def step_labels(unit: Unit) -> tuple[str, ...]:
    """Return the labels of the steps that will run for a unit; a cicc whose output follows from others' will not."""
    targets = codes(unit.argv)
    labels = [*HOST_STEPS, *(f"{step} {code}" for code in targets for step in DEVICE_STEPS)]
    if unit.parts is not None:
        parted = [code for code in targets if not is_shared(unit, f"cicc {code}")]
        count = len(unit.parts.headers)
        labels += [one for code in parted for tool in _PARTED for one in part_labels(f"{tool} {code}", count)]
    return tuple(label for label in labels if not follows(unit, label))


def follows(unit: Unit, label: str) -> bool:
    """Say whether what a step writes is expected to follow from what others do.

    That is the PTX that is another architecture's, or put together of those of its parts.
    """
    return is_shared(unit, label) or (unit.parts is not None and _CICC.fullmatch(label) is not None)


def is_shared(unit: Unit, label: str) -> bool:
    """Say whether what a step writes is expected to follow from what it writes for another architecture."""
    return any(label == f"cicc {code}" for code, _ in unit.shares)


def predict(unit: Unit, label: str, costs: Costs) -> Prediction:
    """Return what a job of a unit is expected to take, by its label."""
    return FOLLOWS if follows(unit, label) else costs.predict(unit, label)


def forecast_steps(unit: Unit, costs: Costs) -> Mapping[str, Prediction]:
    """Return what each step of a unit is expected to take, by its label; "" where one command makes it.

    A unit that was made by one command before, because nvcc's call can't be taken apart, is expected to be so again.
    """
    whole = costs.measured(unit) if unit.module_id else costs.predict(unit)
    if whole is not None:
        return {"": whole}
    return {label: costs.predict(unit, label) for label in step_labels(unit)}


def forecast(unit: Unit, costs: Costs) -> Prediction:
    """Return the seconds of a unit's steps in one slot (in parts, in several), and the peak of the largest."""
    steps = forecast_steps(unit, costs)
    if len(steps) == 1:
        return next(iter(steps.values()))
    return Prediction(length_of(steps), max(step.peak_bytes for step in steps.values()))
