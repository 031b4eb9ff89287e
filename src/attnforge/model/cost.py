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


def family(key: str) -> str:
    """Return what a key has in common with those of like units: package, kind of kernel, and the program of a step.

    ``flash-attn 2.8.3 forward-hdim64x4 slim nvcc 13.0.88 | cicc sm_90`` is of the family ``flash-attn forward cicc``.
    """
    unit, _, label = key.partition(SEPARATOR)
    package, _, rest = unit.partition(" ")
    _, _, kernel = rest.partition(" ")
    kind = kernel.partition(" ")[0].partition("-hdim")[0]
    return " ".join((package, kind, label.partition(" ")[0]))


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a unit or a step takes: CPU ``seconds`` (user and system), ``peak_bytes`` of memory of all its processes.

    ``late_bytes`` is the most that it holds once its memory has dropped to less than half of its peak, which it does
    when the part ``early`` (0 to 1) of its time is over. None where it never does, or where that is not known.
    """

    seconds: float
    peak_bytes: int
    late_bytes: int | None = None
    early: float = 1.0
