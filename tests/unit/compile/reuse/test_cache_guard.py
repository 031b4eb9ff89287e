"""Slow and broken shared stores: bounded time, one warning, nothing that hinders."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace

import pytest
from cache_stores import PATIENT, QUICK, MemoryRemote, failing, hanging

from attnforge.compile.reuse.cache import Limits
from attnforge.compile.reuse.cache.guard import GuardedRemote, Uploads, reason_of, within
from attnforge.compile.reuse.cache.notices import Notices


class Watched:
    """A guarded store with what it warned of and counted."""

    def __init__(self, remote: MemoryRemote, limits: Limits) -> None:
        self.warnings: list[str] = []
        self.counts: Counter[str] = Counter()
        self.remote = remote
        self.guarded = GuardedRemote(remote, limits, Notices(self.warnings.append), self._count)

    def _count(self, name: str) -> None:
        self.counts[name] += 1


def test_what_works_is_passed_on() -> None:
    watched = Watched(MemoryRemote(), PATIENT)
    watched.guarded.offer("a", b"one")
    watched.guarded.close(30)
    assert watched.guarded.read("a") == b"one"
    assert watched.counts == {"uploads": 1}
    assert watched.warnings == []


def test_absent_is_no_failure() -> None:
    watched = Watched(MemoryRemote(), PATIENT)
    assert [watched.guarded.read("a") for _ in range(10)] == [None] * 10
    assert len(watched.remote.calls) == 10
    assert watched.warnings == []


def test_a_store_that_fails_is_left_alone() -> None:
    watched = Watched(MemoryRemote(failing("read")), PATIENT)
    assert [watched.guarded.read("a") for _ in range(10)] == [None] * 10
    watched.guarded.offer("a", b"one")
    watched.guarded.close(30)
    assert watched.remote.calls == ["read"] * 3
    assert watched.counts == {"upload_failures": 1}
    assert watched.warnings == ["memory://store is not used for the rest of this build: https://***@store refused"]


def test_a_store_that_hangs_is_left_alone() -> None:
    with hanging("read") as before:
        watched = Watched(MemoryRemote(before), QUICK)
        assert [watched.guarded.read("a") for _ in range(10)] == [None] * 10
        assert len(watched.remote.calls) == 3
        assert watched.warnings == ["memory://store is not used for the rest of this build: no answer within 0.05 s"]


def test_only_failures_in_a_row_count() -> None:
    watched = Watched(MemoryRemote(), PATIENT)
    for _ in range(5):
        watched.remote.before = failing("read")
        watched.guarded.read("a")
        watched.guarded.read("a")
        watched.remote.before = failing()
        watched.guarded.read("a")
    assert len(watched.remote.calls) == 15
    assert watched.warnings == []


def test_a_store_that_is_only_readable_goes_on_answering() -> None:
    watched = Watched(MemoryRemote(failing("write")), replace(PATIENT, upload_threads=1))
    watched.remote.blobs["a"] = b"one"
    for _ in range(5):
        watched.guarded.offer("b", b"two")
    watched.guarded.close(30)
    assert watched.remote.calls == ["write"] * 3
    assert watched.guarded.read("a") == b"one"
    assert watched.counts == {"upload_failures": 5}
    assert watched.warnings == ["nothing more is uploaded to memory://store: https://***@store refused"]


def test_uploads_that_hang_are_given_up() -> None:
    with hanging("write") as before:
        watched = Watched(MemoryRemote(before), replace(QUICK, upload_threads=1))
        for _ in range(5):
            watched.guarded.offer("b", b"two")
        watched.guarded.close(30)
        assert watched.counts == {"upload_failures": 5}
        assert watched.warnings == ["nothing more is uploaded to memory://store: no answer within 0.05 s"]


def test_closing_waits_no_longer_than_it_is_told() -> None:
    with hanging("write") as before:
        watched = Watched(MemoryRemote(before), replace(PATIENT, upload_threads=1))
        for _ in range(3):
            watched.guarded.offer("a", b"one")
        watched.guarded.close(0.05)
        assert watched.warnings == ["3 uploads to memory://store were not done in 0.05 s"]
        assert watched.counts["upload_failures"] in (2, 3)  # the first may not have begun
        watched.guarded.offer("b", b"late")
        watched.guarded.close(0)
    assert "b" not in watched.remote.blobs


def test_a_full_queue_takes_no_more() -> None:
    begun = threading.Event()
    over = threading.Event()
    done: list[str] = []

    def upload(path: str, blob: bytes) -> None:
        begun.set()
        over.wait(30)
        done.append(path)

    uploads = Uploads(upload, threads=1, limit_bytes=10)
    assert uploads.offer("running", bytes(100))
    assert begun.wait(30)
    assert [uploads.offer(path, bytes(5)) for path in ("a", "b", "c")] == [True, True, False]
    over.set()
    assert uploads.close(30) == (0, 0)
    assert done == ["running", "a", "b"]


def test_uploads_run_side_by_side() -> None:
    together = threading.Barrier(2)

    def upload(path: str, blob: bytes) -> None:
        together.wait(30)

    uploads = Uploads(upload, threads=2, limit_bytes=100)
    uploads.offer("a", b"")
    uploads.offer("b", b"")
    assert uploads.close(30) == (0, 0)
    assert not together.broken


def test_within_returns_raises_or_gives_up() -> None:
    assert within(30, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(30, lambda: 1 // 0)
    over = threading.Event()
    with pytest.raises(TimeoutError, match="within 0.01 s"):
        within(0.01, over.wait)
    over.set()


def test_a_time_out_of_the_call_itself_keeps_its_words() -> None:
    def call() -> None:
        raise TimeoutError("the socket said so")

    with pytest.raises(TimeoutError, match="the socket said so"):
        within(30, call)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError(), "ValueError"),
        (ValueError("redis://me:hunter2@host/0 is down"), "redis://***@host/0 is down"),
    ],
)
def test_a_reason_is_one_line_without_credentials(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


def test_nothing_that_hangs_keeps_the_process_from_exiting() -> None:
    program = """
import threading
from attnforge.compile.reuse.cache.guard import GuardedRemote, Limits
from attnforge.compile.reuse.cache.notices import Notices
class Hangs:
    name = "hangs://"
    def read(self, path): threading.Event().wait()
    write = lambda self, path, blob: self.read(path)
    delete = read
remote = GuardedRemote(Hangs(), Limits(lookup_seconds=0.01), Notices(lambda text: None), lambda name: None)
remote.offer("a", b"one")
print(remote.read("a"))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (0, "None\n"), result.stderr
