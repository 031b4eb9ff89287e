"""The folders of a build."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from attnforge.process.guard import make_temporary


@dataclass(frozen=True, slots=True)
class Places:
    """Where a build works: the ``plan``'s folder, ``work`` in it, and ``temporary`` in ``root`` for what is removed."""

    plan: Path
    work: Path
    root: Path
    temporary: Path

    @classmethod
    def make(cls, plan: Path, root: Path) -> Self:
        """Make the folders. OSError."""
        work = plan / "work"
        for folder in (root, work):
            folder.mkdir(parents=True, exist_ok=True)
        # Only we may enter it: whoever reaches the socket can run commands.
        temporary = make_temporary("attnforge-", root)
        (temporary / "seat").mkdir()
        return cls(plan, work, root, temporary)

    @property
    def seat(self) -> Path:
        """The folder of the seat, to be put first on PATH."""
        return self.temporary / "seat"

    @property
    def socket(self) -> Path:
        """The socket that the seat connects to."""
        return self.temporary / "socket"

    @property
    def written(self) -> tuple[Path, Path]:
        """The folders whose disks a build needs space on."""
        return self.plan, self.root
