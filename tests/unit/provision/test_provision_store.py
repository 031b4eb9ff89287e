"""Cache entries: made once, whole or not at all."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

import pytest

from attnforge.errors import HostError
from attnforge.provision.store import Facts, provide


def make(folder: Path) -> Facts:
    (folder / "content").write_text("whole")
    return {"number": 1}


def fail(folder: Path) -> Facts:
    (folder / "half").write_text("half")
    raise RuntimeError("killed")


def never(folder: Path) -> Facts:
    raise AssertionError("made again")


def test_made_once(tmp_path: Path) -> None:
    entry = tmp_path / "room" / "entry"
    assert provide(entry, make) == {"number": 1}
    assert provide(entry, never) == {"number": 1}
    assert (entry / "content").read_text() == "whole"


def test_a_half_made_entry_is_made_again_from_nothing(tmp_path: Path) -> None:
    entry = tmp_path / "entry"
    with pytest.raises(RuntimeError):
        provide(entry, fail)
    assert provide(entry, make) == {"number": 1}
    assert not (entry / "half").exists()


def test_a_complete_entry_needs_no_lock(tmp_path: Path) -> None:
    """So a cache that can't be written still serves what it holds."""
    entry = tmp_path / "entry"
    provide(entry, make)
    (tmp_path / "entry.lock").unlink()
    (tmp_path / "entry.lock").mkdir()  # a lock file can't be opened there, by anyone
    assert provide(entry, never) == {"number": 1}


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', "\0\0\0"])
def test_a_damaged_marker_does_not_count(tmp_path: Path, content: str) -> None:
    entry = tmp_path / "entry"
    entry.mkdir()
    (entry / "complete.json").write_text(content)
    assert provide(entry, make) == {"number": 1}


def test_an_unhealthy_entry_is_made_again(tmp_path: Path) -> None:
    provide(tmp_path / "entry", make)
    made: list[Path] = []
    provide(tmp_path / "entry", lambda folder: made.append(folder) or {}, lambda facts: False)  # type: ignore[func-returns-value]
    assert made == [tmp_path / "entry"]


def test_facts_of_an_older_layout_are_unhealthy(tmp_path: Path) -> None:
    provide(tmp_path / "entry", make)
    assert provide(tmp_path / "entry", lambda _: {"new": 2}, lambda facts: bool(facts["new"])) == {"new": 2}


def test_two_at_once_make_it_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def slow(folder: Path) -> Facts:
        calls.append(1)
        time.sleep(0.05)
        return make(folder)

    results: list[Facts] = []
    threads = [threading.Thread(target=lambda: results.append(provide(tmp_path / "e", slow))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1]
    assert results == [{"number": 1}] * 4


def test_a_full_disk_while_making_is_told_and_marks_nothing(tmp_path: Path) -> None:
    def full(folder: Path) -> Facts:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(HostError):
        provide(tmp_path / "entry", full)
    assert not (tmp_path / "entry" / "complete.json").exists()
