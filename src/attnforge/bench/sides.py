"""What is timed beside what, and what it is called."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence

from attnforge.model.benchmark import Side

# Packages whose attention can be timed (ongpu/calls.py calls them): how people call them. {} is the major version.
TITLES = {
    "flash-attn": "FlashAttention 2",
    "flash-attn-3": "FlashAttention 3",
    "flashattn-hopper": "FlashAttention 3",
    "flash-attn-4": "FlashAttention 4",
    "sageattention": "SageAttention {}",
}

# PyTorch's own backends that are worth timing. "math" is what the others are measured by, not what anybody deploys.
BACKENDS = {"flash": "SDPA flash", "efficient": "SDPA efficient", "cudnn": "SDPA cuDNN"}


def title(package: str, version: str) -> str:
    """Return what a package is called in a report. KeyError for one that can't be timed."""
    return TITLES[package].format(version.partition(".")[0])


def named(sides: Sequence[Side]) -> tuple[Side, ...]:
    """Return sides with names that differ: of several of one name, the first is A, the next B, and so on."""
    counts = Counter(side.name for side in sides)
    seen: Counter[str] = Counter()
    result = []
    for side in sides:
        letter = f" {string.ascii_uppercase[seen[side.name] % 26]}" if counts[side.name] > 1 else ""
        seen[side.name] += 1
        result.append(side.model_copy(update={"name": side.name + letter}))
    return tuple(result)


def backends(torch: str, python: str) -> tuple[Side, ...]:
    """Return the sides that PyTorch itself has."""
    return tuple(
        Side(name=name, package="sdpa", kernel=kernel, version=torch, torch=torch, python=python)
        for kernel, name in BACKENDS.items()
    )
