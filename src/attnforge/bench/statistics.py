"""Medians, quartiles, and what a ratio of two times is worth."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from attnforge.model.benchmark import Outcome

# The confidence of an interval. With fewer than six rounds no interval reaches it.
CONFIDENCE = 0.95

# A smaller difference is ignored: the placement of a process's memory can cause as much.
SMALLEST = 0.01

# An interval within this of 1 says that two are the same.
CLOSE = 0.02


def quartiles(samples: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile, interpolated. ValueError for no samples."""
    if not samples:
        raise ValueError("no samples")
    if len(samples) == 1:
        return samples[0], samples[0], samples[0]
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, middle, high


def ratio_interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float, float]:
    """Return how b is to a: the ratio, the ends of its interval, and the confidence of that interval.

    ``a[i]`` and ``b[i]`` are of one round, so that a clock that drifts is in both. The ratio is the Hodges-Lehmann
    estimate of the logarithms of b/a, the interval that of Wilcoxon's signed ranks: no distribution is assumed but that
    the logarithms are symmetric about their median, and one wild round moves neither far. The confidence is the lowest
    that the number of rounds allows at or above CONFIDENCE; with fewer than six, what there is. ValueError where there
    are no rounds or not as many of each.
    """
    if not a or len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} rounds")
    logs = [math.log(y / x) for x, y in zip(a, b, strict=True)]
    averages = sorted((logs[i] + logs[j]) / 2 for i in range(len(logs)) for j in range(i, len(logs)))
    cut, confidence = _cut(len(logs))
    middle = statistics.median(averages)
    return math.exp(middle), math.exp(averages[cut]), math.exp(averages[-1 - cut]), confidence


def _cut(rounds: int) -> tuple[int, float]:
    """Return how many averages may be left out at each end, and the confidence of what is left."""
    below, cut, total = 0, 0, 2**rounds
    counts = _signed_ranks(rounds)
    # The interval between the (k+1)th average from each end misses the truth where the rank sum is k or less.
    confidence = 1 - 2 * counts[0] / total
    for k, count in enumerate(counts):
        below += count
        if 1 - 2 * below / total < CONFIDENCE:
            break
        cut, confidence = k, 1 - 2 * below / total
    return cut, max(0.0, confidence)


def _signed_ranks(rounds: int) -> list[int]:
    """Return in how many of the 2^rounds choices of signs the ranks of the positive ones sum to 0, 1, 2, ..."""
    counts = [1] + [0] * (rounds * (rounds + 1) // 2)
    for rank in range(1, rounds + 1):
        for total in range(len(counts) - 1, rank - 1, -1):
            counts[total] += counts[total - rank]
    return counts


def outcome(ratio: float, low: float, high: float, confidence: float) -> Outcome:
    """Return what is said of b, whose time is ``ratio`` of a's, somewhere between ``low`` and ``high``."""
    if confidence < CONFIDENCE:
        return "unclear"
    if high < 1 and ratio <= 1 / (1 + SMALLEST):
        return "faster"
    if low > 1 and ratio >= 1 + SMALLEST:
        return "slower"
    return "same" if low >= 1 / (1 + CLOSE) and high <= 1 + CLOSE else "unclear"
