"""From the units of FlashAttention 2 that were measured to all of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from attnforge.model.kernels import KernelName

ASSUMPTIONS = (
    "a unit that was not measured is taken to cost what a measured one of its kind does: of the same variant, if "
    "there are any, the mean of those nearest in head dimension; fp16 and bf16 are taken to cost the same"
)


def extrapolated(measured: Mapping[str, float], wanted: Iterable[str]) -> dict[str, float]:
    """Return the seconds of each wanted unit, by the recipe's names; ValueError where none of a kind was measured."""
    known = {KernelName.parse(name): seconds for name, seconds in measured.items()}
    return {name: measured.get(name) or _like(KernelName.parse(name), known) for name in wanted}


def _like(wanted: KernelName, known: Mapping[KernelName, float]) -> float:
    kind = [name for name in known if name.kind == wanted.kind]
    if not kind:
        raise ValueError(f"no {wanted.kind} unit was measured")
    alike = [name for name in kind if name.variant == wanted.variant] or kind
    nearest = min(abs(name.head_dim - wanted.head_dim) for name in alike)
    return statistics.fmean(known[name] for name in alike if abs(name.head_dim - wanted.head_dim) == nearest)


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each unit over the rounds."""
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def by_kind(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return the sums for each kind."""
    sums: dict[str, float] = {}
    for name, value in seconds.items():
        kind = KernelName.parse(name).kind
        sums[kind] = sums.get(kind, 0.0) + value
    return sums
