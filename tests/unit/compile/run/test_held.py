from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from attnforge.compile.run.held import DROPPED, Held


def after(samples: Iterable[int], every: float = 1.0) -> Held:
    held = Held()
    for number, sample in enumerate(samples, 1):
        held = held.seen(sample, number * every)
    return held


def test_the_memory_of_a_compiler_rises_once() -> None:
    # cicc of a split-KV unit with all features, in MB, every 10 s of 200: its front end ends after 39 s.
    held = after([1207, 2078, 2957, 3486, 1077, 1197, 1188, 1171, 1125, 1000, 850, 700, 690, 680])
    assert (held.peak, held.late, held.dropped_at) == (3486, 1197, 6.0)
    assert held.early_share(14.0) == 6 / 14


def test_what_never_drops_has_no_late_part() -> None:
    held = after([100, 200, 190, 220, 150, 120])
    assert not held.dropped
    assert held.early_share(6.0) == 1.0


def test_one_low_sample_at_the_end_is_no_drop() -> None:
    assert not after([100, 400, 370, 20]).dropped


def test_a_low_sample_that_did_not_last_is_forgotten() -> None:
    held = after([400, 100, 390, 350])
    assert (held.dropped, held.late, held.peak) == (False, 0, 400)


def test_a_second_rise_counts_as_late() -> None:
    held = after([400, 100, 100, 300, 200])
    assert (held.dropped, held.late, held.peak) == (True, 300, 400)


@given(st.lists(st.integers(1, 1000), max_size=40), st.integers(0, 1200))
def test_late_is_what_was_seen_since(samples: list[int], largest: int) -> None:
    held = after(samples).at_least(largest)
    assert held.peak == max([largest, *samples])
    if held.dropped:
        since = samples[int(held.dropped_at) - 2 :]
        assert held.late == max(since)
        assert since[0] < DROPPED * max(samples[: int(held.dropped_at)])
    else:
        assert held.early_share(float(len(samples))) == 1.0
