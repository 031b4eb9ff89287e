"""Says which PyTorch minors and Pythons a universal wheel is for: in its label, its requirement, and to people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from attnforge.model.minors import ordered, runs
from attnforge.model.universal import Pair, sorted_pairs

# A run of so many is written "A to B" to people; shorter ones are listed.
_LONG = 3


def minors_of(pairs: Iterable[Pair]) -> tuple[str, ...]:
    """Return the PyTorch minors of pairs (``2.9``, ``2.11``), each once, lowest first."""
    return ordered(pair.torch_minor for pair in pairs)


def pythons_of(pairs: Iterable[Pair]) -> tuple[str, ...]:
    """Return the Pythons of pairs (``3.9``, ``3.12``), each once, lowest first."""
    return ordered(pair.python for pair in pairs)


def torches_of(pairs: Iterable[Pair]) -> tuple[str, ...]:
    """Return the full versions of PyTorch of pairs (``2.11.0``), each once, in the order of the pairs."""
    return tuple(dict.fromkeys(pair.torch for pair in pairs))


def is_grid(pairs: Sequence[Pair]) -> bool:
    """Say whether each PyTorch of the pairs is there with each Python of them."""
    return len(pairs) == len(minors_of(pairs)) * len(pythons_of(pairs))


def span(minors: Iterable[str]) -> str:
    """Return minors as a label has them: ``2.9and2.11to2.13``."""
    return "and".join(run[0] if len(run) == 1 else f"{run[0]}to{run[-1]}" for run in runs(minors))


def described(pairs: Sequence[Pair]) -> str:
    """Return pairs as people read them: ``4 pairs: PyTorch 2.11, 2.12 x Python 3.12, 3.13``.

    Those that are no grid are listed by the Pythons that some PyTorch are there with.
    """
    by_torch = groupby(sorted_pairs(pairs), key=lambda pair: pair.torch_minor)
    rows = [(minor, _listed(pythons_of(group))) for minor, group in by_torch]
    parts = [
        f"PyTorch {', '.join(minor for minor, _ in group)} x Python {pythons}"
        for pythons, group in groupby(rows, key=lambda row: row[1])
    ]
    return f"{len(pairs)} pair{'' if len(pairs) == 1 else 's'}: " + "; ".join(parts)


def _listed(minors: Iterable[str]) -> str:
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) >= _LONG else ", ".join(run) for run in runs(minors))
