"""Warnings that are given once: every step of a build meets a full disk."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Notices:
    """Passes on the first warning of each topic. ``warn`` is called from any thread, by one at a time."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._given: set[str] = set()
        self._lock = threading.Lock()

    def once(self, topic: str, text: str) -> None:
        """Warn, unless there was a warning of this topic."""
        with self._lock:
            if topic not in self._given:
                self._given.add(topic)
                self._warn(text)
