"""The memory of a running program, sample by sample. Pure.

A compiler's memory has one hump: cicc's front end holds gigabytes, and what comes after it a quarter of them for most
of the time. So beside the peak two figures are worth knowing: when memory dropped, and the most that was held after.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

# Memory has dropped when it is less than this part of the peak so far.
DROPPED = 0.5

# So many samples in a row: a single one may have been taken while a program that ends gives its memory back.
_SURE = 2


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes: ``now``, the ``peak`` so far, and ``late``, the most since memory dropped.

    ``began`` and ``dropped_at`` are readings of the caller's clock, in seconds; the latter is 0 before it dropped.
    """

    began: float = 0.0
    now: int = 0
    peak: int = 0
    late: int = 0
    dropped_at: float = 0.0
    low: int = 0

    @property
    def dropped(self) -> bool:
        """Whether memory has dropped for good."""
        return self.dropped_at > 0

    def seen(self, held: int, clock: float) -> Held:
        """Return this with one more sample."""
        if self.dropped:
            return replace(self, now=held, peak=max(self.peak, held), late=max(self.late, held))
        if held >= DROPPED * self.peak:
            return replace(self, now=held, peak=max(self.peak, held), late=0, low=0)
        sure = self.low + 1 >= _SURE
        return replace(
            self, now=held, late=max(self.late, held), low=self.low + 1, dropped_at=clock if sure else self.dropped_at
        )

    def at_least(self, largest: int) -> Held:
        """Return this where one process was known to hold ``largest`` at some time."""
        return replace(self, peak=max(self.peak, largest))

    def early_share(self, seconds: float) -> float:
        """Return the part (0 to 1) of so many seconds, from the beginning, before memory dropped; 1 if it did not."""
        return min((self.dropped_at - self.began) / seconds, 1.0) if self.dropped and seconds > 0 else 1.0
