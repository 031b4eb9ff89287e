"""What compiling a unit is expected to take."""

from __future__ import annotations

from dataclasses import dataclass

DISPATCH = "dispatch"
"""The kind, in recipes and cost keys, of the host unit that calls the kernels."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one unit takes: CPU ``seconds`` (user and system) and ``peak_bytes`` of memory of all its processes."""

    seconds: float
    peak_bytes: int
