"""Quartiles, intervals of ratios, and what is said of them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.bench.statistics import CONFIDENCE, _cut, _signed_ranks, outcome, quartiles, ratio_interval

TIMES = st.floats(min_value=1e-3, max_value=1e4, allow_nan=False)
PAIRS = st.lists(st.tuples(TIMES, TIMES), min_size=1, max_size=20)


@given(st.lists(TIMES, min_size=1, max_size=30))
def test_quartiles_are_in_order_and_among_the_samples(samples: list[float]) -> None:
    low, middle, high = quartiles(samples)
    assert min(samples) <= low <= middle <= high <= max(samples)


def test_quartiles_by_hand() -> None:
    assert quartiles([5, 1, 4, 2, 3]) == (2, 3, 4)
    assert quartiles([7.0]) == (7.0, 7.0, 7.0)
    with pytest.raises(ValueError, match="no samples"):
        quartiles([])


def test_signed_ranks_by_hand() -> None:
    # Signs of ranks 1, 2, 3: sums 0, 1, 2, 3 (twice: 3 and 1+2), 4, 5, 6.
    assert _signed_ranks(3) == [1, 1, 1, 2, 1, 1, 1]
    assert sum(_signed_ranks(12)) == 2**12


@pytest.mark.parametrize(
    # Two-sided 5 % critical values of Wilcoxon's signed-rank test, as in any table of it; below 6 there is none.
    ("rounds", "critical"),
    [(6, 0), (7, 2), (8, 3), (9, 5), (10, 8), (11, 10), (12, 13), (15, 25), (20, 52)],
)
def test_cuts_are_those_of_the_tables(rounds: int, critical: int) -> None:
    cut, confidence = _cut(rounds)
    assert cut == critical
    assert CONFIDENCE <= confidence < 1


@pytest.mark.parametrize("rounds", [1, 2, 3, 4, 5])
def test_few_rounds_make_no_one_sure(rounds: int) -> None:
    cut, confidence = _cut(rounds)
    assert cut == 0
    assert confidence < CONFIDENCE
    assert outcome(0.5, 0.5, 0.5, confidence) == "unclear"


@given(PAIRS)
def test_the_ratio_lies_in_its_interval_and_turns_round(pairs: list[tuple[float, float]]) -> None:
    a, b = ([pair[at] for pair in pairs] for at in (0, 1))
    ratio, low, high, confidence = ratio_interval(a, b)
    assert low <= ratio * (1 + 1e-9)
    assert ratio <= high * (1 + 1e-9)
    back, back_low, back_high, same = ratio_interval(b, a)
    assert back == pytest.approx(1 / ratio)
    assert back_low == pytest.approx(1 / high)
    assert back_high == pytest.approx(1 / low)
    assert confidence == same


@given(PAIRS, st.floats(0.5, 2))
def test_a_clock_that_drifts_is_in_both_and_changes_nothing(pairs: list[tuple[float, float]], drift: float) -> None:
    a, b = ([pair[at] for pair in pairs] for at in (0, 1))
    slower = [drift ** (at / len(a)) for at in range(len(a))]
    drifted = ratio_interval(
        [x * y for x, y in zip(a, slower, strict=True)], [x * y for x, y in zip(b, slower, strict=True)]
    )
    assert drifted == pytest.approx(ratio_interval(a, b))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng, held, trials = random.Random(7), 0, 1500
    for _ in range(trials):
        a = [rng.lognormvariate(0, 0.01) for _ in range(9)]
        b = [1.05 * rng.lognormvariate(0, 0.01) for _ in range(9)]
        _, low, high, _ = ratio_interval(a, b)
        held += low <= 1.05 <= high
    assert 0.94 <= held / trials <= 0.98  # _cut(9) says 0.961; three standard deviations are 0.015


def test_one_wild_round_moves_little() -> None:
    a, b = [1.0 + at / 1000 for at in range(11)], [1.1 + at / 1000 for at in range(11)]
    b[4] *= 50
    ratio, low, high, confidence = ratio_interval(a, b)
    assert ratio == pytest.approx(1.1, rel=0.01)
    assert outcome(ratio, low, high, confidence) == "slower"


def test_rounds_that_do_not_pair_are_an_error() -> None:
    for a in ([1.0], []):
        with pytest.raises(ValueError, match="rounds"):
            ratio_interval(a, [])


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ((0.90, 0.89, 0.91), "faster"),
        ((1.20, 1.10, 1.30), "slower"),
        ((1.001, 0.995, 1.006), "same"),
        ((1.004, 1.002, 1.008), "same"),  # surely slower, by what nobody would notice
        ((0.996, 0.97, 1.004), "unclear"),
        ((1.10, 0.95, 1.30), "unclear"),
        ((0.98, 0.96, 1.001), "unclear"),
    ],
)
def test_what_is_said(interval: tuple[float, float, float], said: str) -> None:
    assert outcome(*interval, 0.95) == said
