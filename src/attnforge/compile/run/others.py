"""What other programs, and attnforge itself, take of the memory that a build counted on when it began."""

from __future__ import annotations

from collections.abc import Callable

from attnforge.compile.run.sampler import own_resident

# The part of its budget that a build has to miss before it says so.
_WORTH_A_WORD = 0.1


class Others:
    """Says how much of the budget others hold now. Used by one thread, after each sample."""

    def __init__(
        self,
        budget_bytes: int,
        free: Callable[[], int] | None = None,
        warn: Callable[[str], object] = str,
        own: Callable[[], int] = own_resident,
    ) -> None:
        """Begin a build. ``free`` says how many bytes compilers may take now beside what they hold; None: unknown.

        ``warn`` is told once that other programs take what this build counted on. ``own`` is what attnforge holds.
        """
        self._budget = budget_bytes
        self._free = free
        self._warn = warn
        self._own = own
        self._own_bytes = own()
        self._warned = False

    def taken(self, used_bytes: int) -> int:
        """Return the bytes of the budget that others hold, while compilers hold ``used_bytes``."""
        missing = self._budget - used_bytes - self._free() if self._free else 0
        if missing > _WORTH_A_WORD * self._budget and not self._warned:
            self._warned = True
            self._warn(
                f"there is less free memory than this build counted on: compilers get {_gb(self._budget - missing)} of"
                f" {_gb(self._budget)} now, so fewer run until there is more (one always runs)"
            )
        # The budget is what was free when the build began: what attnforge takes since is part of it.
        return max(self._own() - self._own_bytes, missing, 0)


def _gb(size: int) -> str:
    return f"{max(size, 0) / 1e9:.1f} GB"
