"""What tests of the command line share."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def reports_of_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a report of a fault of our own go into the test's folder, which pytest removes in time."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
