"""Finds programs and asks them for one line: the only way in which the probes run anything."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from attnforge.process import Command, Runner, base_environment

_SECONDS = 10.0
"""A program that takes longer to tell its version hangs (a driver that does not answer, a network mount)."""


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs on a PATH, run through one runner in a separate environment."""

    runner: Runner
    environ: Mapping[str, str]

    @property
    def folders(self) -> tuple[Path, ...]:
        """The absolute folders of PATH in order, each once."""
        named = self.environ.get("PATH", "").split(os.pathsep)
        return tuple(dict.fromkeys(Path(folder) for folder in named if folder.startswith("/")))

    def find(self, name: str) -> Path | None:
        """Return the first executable of that name on PATH."""
        return next((path for folder in self.folders if is_executable(path := folder / name)), None)

    def find_all(self, pattern: re.Pattern[str]) -> Iterator[Path]:
        """Yield every executable on PATH whose whole name matches, folder by folder, names in order."""
        for folder in self.folders:
            for name in _names(folder):
                if pattern.fullmatch(name) and is_executable(folder / name):
                    yield folder / name

    def ask(self, *argv: str | Path, path: str | None = None) -> str:
        """Return what a program printed, or "" if it can't be started, failed, or took longer than 10 s.

        The program sees ``path`` as its PATH, else ours.
        """
        env = base_environment(self.environ) | {"PATH": self.environ.get("PATH", "") if path is None else path}
        command = Command(tuple(str(word) for word in argv), cwd=Path("/"), env=env, timeout=_SECONDS)
        try:
            outcome = self.runner(command)
        except OSError:
            return ""
        return outcome.output if outcome.ok else ""

    def version(self, *argv: str | Path) -> str:
        """Return the first version number in what a program printed, or ""."""
        match = re.search(r"\d+(?:\.\d+)+\w*", self.ask(*argv))
        return match[0] if match else ""


def is_executable(path: Path) -> bool:
    """Say whether a path is a file that may be run."""
    return path.is_file() and os.access(path, os.X_OK)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []
