from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.model.cost import Prediction
from attnforge.schedule.scheduler import Job
from attnforge.schedule.simulate import Trial, held_after, simulate
from attnforge.schedule.unit import OPENING, needs_of, tails_of, unit_of

MB, GB = 10**6, 10**9

STEPS = {
    "preprocess": Prediction(1.0, 100 * MB),
    "cudafe++": Prediction(4.0, 600 * MB),
    "preprocess sm_90": Prediction(1.0, 100 * MB),
    "cicc sm_90": Prediction(200.0, 3600 * MB, 1300 * MB, 0.2),
    "ptxas sm_90": Prediction(60.0, 600 * MB),
    "fatbinary": Prediction(2.0, 100 * MB),
    "compile": Prediction(5.0, 400 * MB),
}


def one(name: str, take: Prediction) -> Trial:
    return Trial(Job(name, take.seconds, take.peak_bytes, late_bytes=take.late_bytes), take)


def test_steps_wait_for_what_they_read() -> None:
    assert needs_of("cicc sm_90", STEPS) == ("preprocess sm_90",)
    assert needs_of("ptxas sm_90", STEPS) == ("cicc sm_90",)
    assert needs_of("fatbinary", {**STEPS, "ptxas sm_80": Prediction(1, 1)}) == ("ptxas sm_90", "ptxas sm_80")
    assert set(needs_of("compile", STEPS)) == {"cudafe++", "fatbinary"}
    assert tails_of(STEPS)["cicc sm_90"] == 67
    assert tails_of(STEPS)["compile"] == 0


def test_a_unit_takes_its_longest_chain() -> None:
    found = simulate([unit_of("a", STEPS)], 2, 10 * GB)
    assert found.seconds == pytest.approx(OPENING.seconds + 1 + 200 + 60 + 2 + 5)
    assert simulate([unit_of("a", STEPS)], 1, 10 * GB).seconds == pytest.approx(OPENING.seconds + 273)
    assert found.held_bytes >= 3600 * MB


def test_what_is_released_lets_more_run() -> None:
    units = [unit_of(str(number), STEPS) for number in range(12)]
    enough = simulate(units, 12, 60 * GB)
    tight = simulate(units, 12, 24 * GB)
    kept = {label: Prediction(step.seconds, step.peak_bytes) for label, step in STEPS.items()}
    never = simulate([unit_of(str(number), kept) for number in range(12)], 12, 24 * GB)
    assert enough.seconds == pytest.approx(273 - 4, abs=10)
    # Six fit at their peaks; the others start when these are past them, or else when they have ended.
    assert tight.seconds < 1.3 * enough.seconds
    assert never.seconds > 1.6 * enough.seconds
    assert tight.reserved_bytes <= 24 * GB


def test_what_others_hold_leaves_less() -> None:
    units = [unit_of(str(number), STEPS) for number in range(4)]
    free = simulate(units, 4, 20 * GB)
    assert simulate(units, 4, 20 * GB, other_bytes=14 * GB).seconds > 1.2 * free.seconds


def test_memory_rises_and_drops() -> None:
    cicc = STEPS["cicc sm_90"]
    assert [held_after(cicc, seconds) for seconds in (0, 20, 40, 41, 200)] == [
        0,
        1800 * MB,
        3600 * MB,
        1300 * MB,
        1300 * MB,
    ]


def test_how_many_run_at_once_is_the_average() -> None:
    jobs = [one(str(number), Prediction(10.0, 1)) for number in range(40)]
    found = simulate(jobs, 8, 100)
    assert (found.at_once, found.seconds) == (8, 50.0)
    assert simulate([one("a", Prediction(10.0, 1))], 8, 100).at_once == 1
    assert simulate([], 8, 100).seconds == 0


takes = st.builds(
    lambda seconds, peak, share, early: Prediction(seconds, peak, int(peak * share) if share < 0.5 else None, early),
    st.floats(0.1, 100),
    st.integers(1, 100),
    st.floats(0, 1),
    st.floats(0.05, 0.95),
)


@given(st.lists(takes, min_size=1, max_size=30), st.integers(1, 8), st.integers(100, 400))
def test_it_is_between_the_bounds_of_any_schedule(jobs: list[Prediction], slots: int, budget: int) -> None:
    found = simulate([one(str(number), take) for number, take in enumerate(jobs)], slots, budget)
    work, longest = sum(take.seconds for take in jobs), max(take.seconds for take in jobs)
    assert max(longest, work / slots) - 1e-6 <= found.seconds <= work + 1e-6
    assert found.held_bytes <= budget
    assert 1 <= found.at_once <= slots


def test_three_hundred_units_take_a_fraction_of_a_second() -> None:
    units = [unit_of(str(number), STEPS) for number in range(300)]
    began = time.process_time()
    assert simulate(units, 32, 110 * GB).seconds > 2000
    assert time.process_time() - began < 2  # 0.4 s where nothing else runs


def test_the_replay_of_a_measured_build_keeps_slots_busy_within_the_budget() -> None:
    # As experiments/replay.py prints it: 32 slots and 110 GB, predictions of the recipe and those of a build before.
    sys.path.insert(0, str(Path(__file__).parents[3] / "experiments"))
    try:
        import replay
    finally:
        del sys.path[0]
    from attnforge.model.target import Architecture

    path = Path(__file__).parents[1] / "recipes" / "fa2-full-sm90-costs.json"
    units = replay.measured_units(path, "flash-attn", Architecture.parse("9.0"))
    work = sum(step.seconds for _, _, took in units for step in _values(took))
    for known in (False, True):
        found = replay.replay(units, 32, 110 * GB, known=known)
        assert found.held_bytes <= 110 * GB
        assert found.busy(32, found.last_begun) >= 0.95
        assert found.seconds <= 1.12 * work / 32


def _values(steps: Mapping[str, Prediction]) -> list[Prediction]:
    return list(steps.values())
