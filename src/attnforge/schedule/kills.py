"""What follows from jobs that the kernel kills for memory. Pure.

Such a kill says that predictions are wrong, and not only that job's. So all jobs of its kind reserve more, those that
run too, and fewer run at once for a while. When one of them has ended well, its measured peak takes the place of the
guess, and a slot opens again for each that ends. A job is tried again until it is killed with no other beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

# What a job reserves next, as a multiple of the most that was reserved for it when it was killed.
AGAIN = 2

# What is reserved above the highest peak that was seen since.
_MARGIN = 1.02


@dataclass(frozen=True, slots=True)
class Correction:
    """By which ``factor`` first predictions of a kind are raised, at most to ``most`` bytes; measured, or a guess."""

    factor: float = 1.0
    most: int = 0
    measured: bool = False

    def with_one(self, factor: float, most: int, measured: bool) -> Correction:
        """Return the correction after one more job. What is measured takes the place of what was guessed."""
        if measured and not self.measured:
            return Correction(max(factor, 1.0), most, measured)
        return Correction(max(factor, self.factor), max(most, self.most), measured)


class Kills:
    """How often jobs were killed, what is predicted since, and how many may run at once."""

    def __init__(self, slots: int, budget_bytes: int) -> None:
        """Begin without a kill."""
        self._slots = slots
        self._budget = budget_bytes
        self.open_slots = slots
        """How many jobs may run at once now."""
        self._corrections: dict[str, Correction] = {}
        self._times: Counter[str] = Counter()
        self._accompanied: set[str] = set()
        self._recent: set[str] = set()
        self._lost: set[str] = set()

    def corrected(self, kind: str, first_bytes: int, peak_bytes: int) -> int:
        """Return the peak to reserve for a job that was predicted ``first_bytes`` at first and ``peak_bytes`` now."""
        found = self._corrections.get(kind)
        return peak_bytes if found is None else max(peak_bytes, min(int(first_bytes * found.factor), found.most))

    def started(self, job_id: str, others: Iterable[str]) -> None:
        """Take note of a job that starts beside others."""
        self._recent.add(job_id)
        self._accompanied.discard(job_id)
        beside = set(others)
        if beside:
            self._accompanied |= {job_id, *beside}

    def killed(self, job_id: str, kind: str, first_bytes: int, most_bytes: int, running: int) -> int:
        """Take note of a kill; return the bytes to try it again with, 0 if it ran with no other and not only once.

        ``most_bytes`` is the most that was reserved for it, ``running`` how many jobs ran then.
        """
        self._times[job_id] += 1
        if self._times[job_id] > 1 and job_id not in self._accompanied:
            self._lost.add(job_id)
            return 0
        wanted = min(AGAIN * most_bytes, self._budget)
        self._correct(kind, first_bytes, wanted, measured=False)
        # Jobs that started before the last kill are of the same wave: they say nothing of fewer at once.
        if job_id in self._recent:
            self.open_slots = max(min(running, self.open_slots) // 2, 1)
            self._recent.clear()
        # The second time it gets all the memory, so that nothing runs beside it.
        return wanted if self._times[job_id] == 1 else self._budget

    def ended(self, job_id: str, kind: str, first_bytes: int, seen_bytes: int) -> None:
        """Take note of a job that ended, and of the most that it was seen to hold (0 if nothing was seen)."""
        if kind in self._corrections and job_id not in self._lost:
            self.open_slots = min(self.open_slots + 1, self._slots)
            if seen_bytes:
                self._correct(kind, first_bytes, int(_MARGIN * seen_bytes), measured=True)

    def left(self, kinds: Iterable[str]) -> None:
        """Open all slots again where no job that is left is of a kind that was killed."""
        if self.open_slots < self._slots and self._corrections.keys().isdisjoint(kinds):
            self.open_slots = self._slots

    def _correct(self, kind: str, first_bytes: int, most: int, *, measured: bool) -> None:
        before = self._corrections.get(kind, Correction())
        self._corrections[kind] = before.with_one(most / max(first_bytes, 1), most, measured)
