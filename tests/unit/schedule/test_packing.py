from __future__ import annotations

import heapq

from hypothesis import given
from hypothesis import strategies as st

from attnforge.schedule.packing import planned_starts

lengths = st.lists(st.floats(0.1, 100), min_size=1, max_size=60)


def listed(seconds: list[float], order: list[int], busy: list[float], slots: int) -> float:
    """When the last job ends, started in order, each when a slot is free."""
    ends = sorted(busy, reverse=True)[:slots] + [0.0] * (slots - len(busy))
    heapq.heapify(ends)
    last = 0.0
    for job in order:
        start = heapq.heappop(ends)
        last = max(last, start + seconds[job])
        heapq.heappush(ends, start + seconds[job])
    return last


def longest_first(seconds: list[float]) -> list[int]:
    return sorted(range(len(seconds)), key=lambda job: -seconds[job])


@given(lengths, st.integers(1, 12), st.lists(st.floats(0, 100), max_size=14))
def test_the_plan_is_no_worse_than_longest_first_and_can_be_kept(
    seconds: list[float], slots: int, busy: list[float]
) -> None:
    starts = planned_starts(seconds, slots, busy)
    planned = max(start + length for start, length in zip(starts, seconds, strict=True))
    order = sorted(range(len(seconds)), key=lambda job: (starts[job], -seconds[job]))
    plain = listed(seconds, longest_first(seconds), busy, slots)
    assert planned <= plain * (1 + 1e-9)
    # Jobs that are started in the plan's order, whenever a slot is free, are not late.
    assert listed(seconds, order, busy, slots) <= planned * (1 + 1e-9)


def test_it_finds_what_longest_first_does_not() -> None:
    # The classical case: 5, 5, 4, 4, 3, 3, 3 on three slots take 11 longest first, 9 at best.
    seconds = [5.0, 5.0, 4.0, 4.0, 3.0, 3.0, 3.0]
    starts = planned_starts(seconds, 3)
    assert listed(seconds, longest_first(seconds), [], 3) == 11
    assert max(start + length for start, length in zip(starts, seconds, strict=True)) == 9


def test_nothing_is_planned_for_nothing() -> None:
    assert planned_starts([], 4) == []
