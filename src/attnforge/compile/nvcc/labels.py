"""The labels of the steps that will run for a unit, before nvcc is asked."""

from __future__ import annotations

import re

from attnforge.compile.graph.commands import codes
from attnforge.model.amounts import DEVICE_STEPS, HOST_STEPS
from attnforge.model.graph import Unit
from attnforge.model.parts import part_labels

_CICC = re.compile(r"cicc sm_\w+")

# The programs that run once for each part of a unit.
_PARTED = ("preprocess", "cicc")


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
