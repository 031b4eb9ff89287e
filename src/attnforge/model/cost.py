"""What compiling a unit is expected to take."""

from __future__ import annotations

from dataclasses import dataclass

DISPATCH = "dispatch"
"""The kind, in recipes and cost keys, of the host unit that calls the kernels."""

SEPARATOR = " | "
"""Between a unit's cost key and the label of a step."""


def step_key(cost_key: str, label: str) -> str:
    """Return the name under which a step of such units is predicted and learned; label "" is the whole unit.

    Labels are the steps of nvcc, with the architecture where there is one for each: ``cudafe++``, ``cicc sm_90``.
    """
    return f"{cost_key}{SEPARATOR}{label}" if label else cost_key


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a unit or a step takes: CPU ``seconds`` (user and system), ``peak_bytes`` of memory of all its processes."""

    seconds: float
    peak_bytes: int
