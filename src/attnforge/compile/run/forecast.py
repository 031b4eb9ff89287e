"""Predicts what a unit takes before its steps are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from attnforge.compile.nvcc.labels import follows, step_labels
from attnforge.model.cost import Prediction
from attnforge.model.graph import Unit
from attnforge.schedule.unit import length_of

FOLLOWS = Prediction(0.0, 0)
"""What a step takes whose output follows from others'."""


class Costs(Protocol):
    """What predicts a step of a unit by its label; "" is the whole unit, made by one command."""

    def predict(self, unit: Unit, label: str = "") -> Prediction:
        """Return what it is expected to take."""
        ...

    def measured(self, unit: Unit, label: str = "") -> Prediction | None:
        """Return the same where it was measured; None if it never was."""
        ...


def predict(unit: Unit, label: str, costs: Costs) -> Prediction:
    """Return what a job of a unit is expected to take, by its label."""
    return FOLLOWS if follows(unit, label) else costs.predict(unit, label)


def forecast_steps(unit: Unit, costs: Costs) -> Mapping[str, Prediction]:
    """Return what each step of a unit is expected to take, by its label; "" if one command makes it.

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
