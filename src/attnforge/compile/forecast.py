"""What a unit is expected to take before its steps are known."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from attnforge.model.cost import Prediction
from attnforge.model.graph import Unit
from attnforge.model.recipe import DEVICE_STEPS, HOST_STEPS

Predict = Callable[[Unit, str], Prediction]
"""Returns what a step of a unit takes, by its label; "" is the whole unit."""

_CODE = re.compile(r"(?:^|,)code=(?:\[)?(sm_\w+)")


def step_labels(argv: Sequence[str]) -> tuple[str, ...]:
    """Return the labels of the steps that an nvcc call will have, as far as its ``-gencode`` options tell."""
    codes = [match[1] for word in argv if (match := _CODE.search(word))]
    return (*HOST_STEPS, *(f"{step} {code}" for code in dict.fromkeys(codes) for step in DEVICE_STEPS))


def forecast(unit: Unit, predict: Predict) -> Prediction:
    """Return the CPU seconds of all of a unit's steps, and the peak of the largest."""
    if not unit.module_id:
        return predict(unit, "")
    parts = [predict(unit, label) for label in step_labels(unit.argv)]
    return Prediction(sum(part.seconds for part in parts), max(part.peak_bytes for part in parts))
