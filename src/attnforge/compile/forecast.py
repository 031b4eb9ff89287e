"""What a unit is expected to take before its steps are known."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from attnforge.model.cost import Prediction
from attnforge.model.graph import Unit
from attnforge.model.recipe import DEVICE_STEPS, HOST_STEPS

SHARED = Prediction(0.0, 0)
"""What a step takes whose output follows from another's."""

_CODE = re.compile(r"(?:^|,)code=(?:\[)?(sm_\w+)")


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
    """Return the labels of the steps that will run for a unit; a cicc whose output follows from another's will not."""
    labels = (*HOST_STEPS, *(f"{step} {code}" for code in codes(unit.argv) for step in DEVICE_STEPS))
    return tuple(label for label in labels if not is_shared(unit, label))


def is_shared(unit: Unit, label: str) -> bool:
    """Say whether what a step writes is expected to follow from what another one does."""
    return any(label == f"cicc {code}" for code, _ in unit.shares)


def predict(unit: Unit, label: str, costs: Costs) -> Prediction:
    """Return what a job of a unit is expected to take, by its label."""
    return SHARED if is_shared(unit, label) else costs.predict(unit, label)


def forecast_steps(unit: Unit, costs: Costs) -> Mapping[str, Prediction]:
    """Return what each step of a unit is expected to take, by its label; "" where one command makes it.

    A unit that was made by one command before, because nvcc's call can't be taken apart, is expected to be so again.
    """
    whole = costs.measured(unit) if unit.module_id else costs.predict(unit)
    if whole is not None:
        return {"": whole}
    return {label: costs.predict(unit, label) for label in step_labels(unit)}


def forecast(unit: Unit, costs: Costs) -> Prediction:
    """Return the CPU seconds of all of a unit's steps, and the peak of the largest."""
    parts = list(forecast_steps(unit, costs).values())
    if len(parts) == 1:
        return parts[0]
    return Prediction(sum(part.seconds for part in parts), max(part.peak_bytes for part in parts))
