from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from attnforge.schedule.reservation import LATE_MARGIN, Reservation
from attnforge.schedule.scheduler import Job, Scheduler


def after(reservation: Reservation, *samples: int) -> Reservation:
    peak = 0
    for held in samples:
        peak = max(peak, held)
        reservation = reservation.observed(held, peak)
    return reservation


START = Reservation.of(1000, 300, 10_000)


def test_a_job_that_starts_reserves_its_peak() -> None:
    assert START.bytes == 1000
    assert after(START, 10, 500, 900).bytes == 1000


def test_a_job_past_its_peak_reserves_what_is_left() -> None:
    assert after(START, 500, 980, 200).bytes == 330
    assert after(START, 500, 980, 400).bytes == 440
    assert after(START, 500, 980, 400, 100).bytes == 330


def test_a_job_that_was_not_seen_at_its_peak_releases_nothing() -> None:
    assert after(START, 500, 800, 100).bytes == 1000


def test_a_job_that_has_not_fallen_below_half_releases_nothing() -> None:
    assert after(START, 500, 1000, 500).bytes == 1000


def test_nothing_is_released_where_nothing_is_known_of_the_time_after() -> None:
    assert after(Reservation.of(1000, None, 10_000), 1000, 10).bytes == 1000


def test_a_job_may_rise_again_as_far_as_was_measured() -> None:
    # cicc of a split-KV unit: 3.6 GB in the front end, 0.6 after it, 2.0 in the optimizer.
    cicc = Reservation.of(3600, 2000, 10_000)
    assert [after(cicc, 3600, *more).bytes for more in [(600,), (600, 2000), (600, 2000, 900)]] == [2200] * 3
    assert after(cicc, 3600, 600, 2300).bytes == 3600


def test_a_job_that_rises_again_reserves_its_peak_to_the_end() -> None:
    risen = after(START, 1000, 200, 600)
    assert (risen.bytes, risen.mistaken) == (1000, True)
    assert after(risen, 600, 1000, 100).bytes == 1000


def test_a_job_beyond_its_prediction_reserves_more() -> None:
    assert after(START, 1200).bytes == 1260
    assert after(START, 1200, 200).bytes == 330


def test_a_job_beyond_the_budget_reserves_all_of_it() -> None:
    assert Reservation.of(1000, None, 100).bytes == 100
    assert Reservation.of(0, None, 100).bytes == 1


@given(st.integers(1, 1000), st.none() | st.integers(0, 500), st.lists(st.integers(0, 1500), min_size=1, max_size=30))
def test_never_less_is_reserved_than_is_held(peak: int, late: int | None, samples: list[int]) -> None:
    reservation = after(Reservation.of(peak, late, 10**6), *samples)
    assert reservation.bytes >= samples[-1]
    assert reservation.bytes >= (reservation.late or 0) or not reservation.fallen
    assert late is not None or reservation.bytes >= max(peak, *samples)


# --- many jobs with memory that rises and falls, on a clock that ticks as samples do

TICK = 0.25


@dataclass(frozen=True)
class Hump:
    """Memory in bytes: it rises evenly for ``early`` seconds, drops to ``late`` and stays there to the end."""

    early: float
    seconds: float
    peak: int
    late: int

    def held(self, passed: float) -> int:
        return int(self.peak * passed / self.early) if passed <= self.early else self.late


humps = st.builds(
    lambda early, more, peak, share: Hump(early, early + more, peak, int(peak * share)),
    st.floats(0.5, 20),
    st.floats(0, 60),
    st.integers(10, 100),
    st.floats(0, 0.45),
)


@dataclass
class Run:
    """Jobs on the scheduler; it is told what they hold at each tick, and jobs may start then alone."""

    scheduler: Scheduler
    jobs: dict[str, Hump]
    clock: float = 0.0

    def totals(self, predictions: list[Job]) -> list[int]:
        """Run to the end; return the bytes that are held at each tick, and check what must hold then."""
        self.scheduler.add(predictions)
        began: dict[str, float] = {}
        peaks: dict[str, int] = {}
        totals = []
        while self.scheduler.waiting or began:
            over = sum(self.jobs[name].held(self.clock - start) for name, start in began.items())
            started = self.scheduler.ready()
            if over > self.scheduler.budget_bytes and began:
                assert not started
            began |= {job.id: self.clock for job in started}
            self.clock += TICK
            for name, start in tuple(began.items()):
                held = self.jobs[name].held(self.clock - start)
                peaks[name] = max(peaks.get(name, 0), held)
                if self.clock - start > self.jobs[name].seconds:
                    self.scheduler.finished(name)
                    del began[name]
                else:
                    self.scheduler.observed(name, held, peaks[name])
            totals.append(sum(self.jobs[name].held(self.clock - start) for name, start in began.items()))
        return totals


@given(st.lists(humps, min_size=1, max_size=20), st.integers(1, 8), st.integers(100, 400))
def test_what_is_held_stays_within_the_budget(found: list[Hump], slots: int, budget: int) -> None:
    jobs = {str(number): hump for number, hump in enumerate(found)}
    predictions = [Job(name, hump.seconds, hump.peak, late_bytes=hump.late) for name, hump in jobs.items()]
    assert max(Run(Scheduler(slots, budget), jobs).totals(predictions)) <= budget


@given(st.lists(humps, min_size=1, max_size=20), st.integers(1, 8), st.integers(100, 400), st.floats(0.84, 1.2))
def test_it_is_not_exceeded_for_long_where_predictions_are_wrong(
    found: list[Hump], slots: int, budget: int, error: float
) -> None:
    jobs = {str(number): hump for number, hump in enumerate(found)}
    predictions = [
        Job(name, hump.seconds, int(hump.peak / error), late_bytes=int(hump.late / error))
        for name, hump in jobs.items()
    ]
    totals = Run(Scheduler(slots, budget), jobs).totals(predictions)
    # No job starts while more is held than there is (see totals), so it ends with the humps that are under way.
    assert max(totals) <= error * budget + len(jobs) if error > 1 else max(totals) <= budget
    longest = max(hump.early for hump in found)
    over = 0.0
    for total in totals:
        over = over + TICK if total > budget else 0.0
        assert over <= longest + 2 * TICK


def test_jobs_whose_peaks_do_not_fit_run_at_once_when_they_are_past_them() -> None:
    # 16 compiles of 200 s that hold 4 GB for 40 s and 1.3 GB then, on 16 slots and 40 GB: ten fit by their peaks.
    jobs = {str(number): Hump(40, 200, 4000, 1300) for number in range(16)}
    predictions = [Job(name, hump.seconds, hump.peak, late_bytes=hump.late) for name, hump in jobs.items()]
    run = Run(Scheduler(16, 40_000), jobs)
    assert max(run.totals(predictions)) <= 40_000
    assert run.clock < 250
    kept = Run(Scheduler(16, 40_000), jobs)
    kept.totals([Job(name, hump.seconds, hump.peak) for name, hump in jobs.items()])
    assert kept.clock > 400


def test_the_margin_covers_what_moves_between_samples() -> None:
    assert LATE_MARGIN > 1
