"""The memory that a running job reserves, from its prediction and from what it was seen to hold. Pure.

At each moment that is the most that the job may still need. cicc holds its peak while its front end runs, and a third
to a half of it from then on, which is most of its time. So a job that was seen to reach its peak and to fall below half
of it reserves what was measured for the time after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from attnforge.model.cost import Prediction

# Part of the predicted peak that a job must have reached: one that is at the beginning has little, too.
REACHED = 0.85

# Part of its peak below which a job must have fallen. As for the measurements of the time after (run.held).
FALLEN = 0.5

# What is reserved for what is left, above what was measured and what is held now: memory moves between two samples.
LATE_MARGIN = 1.1

# What is reserved above what a job holds that has passed its prediction: it may be still rising.
RISING_MARGIN = 1.05


@dataclass(frozen=True, slots=True)
class Reservation:
    """``bytes`` are reserved now. ``peak`` and ``late`` were predicted, ``late`` for the time after memory fell.

    None for ``late``: not known, or nothing to gain, so that the peak is kept to the end. ``seen`` is the peak so far.
    ``fallen`` says that the rest was released, ``mistaken`` that it had to be taken back.
    """

    bytes: int
    peak: int
    late: int | None = None
    seen: int = 0
    fallen: bool = False
    mistaken: bool = False

    @classmethod
    def of(cls, peak: int, late: int | None, most: int) -> Reservation:
        """Return what a job reserves that starts. One that needs more than the ``most`` there is still runs."""
        bytes_ = max(1, min(peak, most))
        return cls(bytes_, bytes_, late)

    def observed(self, held: int, peak: int) -> Reservation:
        """Return the reservation of a job that holds so much now, and held ``peak`` at most so far."""
        seen = max(self.seen, held, peak)
        if self.fallen:
            # It may rise again, as far as was measured: cicc's optimizer holds up to half of the front end's peak.
            fallen = held <= max(LATE_MARGIN * (self.late or 0), FALLEN * seen)
        else:
            fallen = self._may_release and seen >= REACHED * self.peak and held < FALLEN * seen
        if fallen:
            bytes_ = max(1, int(LATE_MARGIN * max(self.late or 0, held)))
        else:
            bytes_ = self.peak if seen <= self.peak else int(RISING_MARGIN * seen)
        return replace(
            self, bytes=bytes_, seen=seen, fallen=fallen, mistaken=self.mistaken or (self.fallen and not fallen)
        )

    def raised(self, peak: int) -> Reservation:
        """Return the reservation of a job that is now expected to reach this peak, unless it is past its own."""
        return self if self.fallen or peak <= self.peak else replace(self, bytes=max(self.bytes, peak), peak=peak)

    @property
    def most(self) -> int:
        """The most that was reserved so far."""
        return max(self.bytes, self.peak, self.seen)

    @property
    def _may_release(self) -> bool:
        return self.late is not None and not self.mistaken


def mean_reserved(steps: Sequence[Prediction]) -> int:
    """Return the bytes that are reserved for steps that run one after the other, on average over their time."""
    seconds = sum(step.seconds for step in steps)
    return int(sum(step.seconds * _mean(step) for step in steps) / seconds) if seconds else 0


def _mean(step: Prediction) -> float:
    if step.late_bytes is None:
        return float(step.peak_bytes)
    return step.early * step.peak_bytes + (1 - step.early) * LATE_MARGIN * step.late_bytes
