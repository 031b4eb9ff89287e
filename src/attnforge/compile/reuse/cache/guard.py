"""Keeps a build from waiting for a shared store: time limits, an end to trying, uploads in the background.

All threads are daemons, and none is joined without a limit: none can keep the process from exiting.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, TypeVar

from attnforge.compile.reuse.cache.notices import Notices
from attnforge.process import redact

T = TypeVar("T")


class Remote(Protocol):
    """A shared store of blobs by relative path. Called from several threads; any exception says that it failed."""

    @property
    def name(self) -> str:
        """The store's address without credentials."""
        ...

    def read(self, path: str) -> bytes | None:
        """Return a blob, None if there is none."""
        ...

    def write(self, path: str, blob: bytes) -> None:
        """Write a blob. A reader sees all of it or none, or can tell."""
        ...

    def delete(self, path: str) -> None:
        """Remove a blob, if it is there."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What a shared store may cost: seconds for a look-up and an upload, failures in a row until it is no longer used.

    ``queued_bytes`` wait for one of ``upload_threads`` at most; what comes on top is not uploaded.
    """

    lookup_seconds: float = 5.0
    upload_seconds: float = 60.0
    failures: int = 3
    upload_threads: int = 2
    queued_bytes: int = 2**28


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return what a call returns, or raise what it raises; TimeoutError when the time is over, while it goes on.

    A thread for each call and no pool: calls that never end must not take the places of those that would.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="attnforge-store", daemon=True).start()
    try:
        return future.result(timeout=seconds)
    except TimeoutError:
        if future.done():
            raise
        raise TimeoutError(f"no answer within {seconds:g} s") from None


def reason_of(error: Exception) -> str:
    """Return the first line of an error, without credentials."""
    return redact(str(error).partition("\n")[0]) or type(error).__name__


class _Breaker:
    """Opens after a number of failures in a row, and stays open."""

    def __init__(self, failures: int) -> None:
        self._left = self._failures = failures
        self._lock = threading.Lock()
        self.open = False

    def succeeded(self) -> None:
        with self._lock:
            self._left = self._failures

    def failed(self) -> bool:
        """Count a failure; True for the one that opens it."""
        with self._lock:
            self._left -= 1
            opens = self._left <= 0 and not self.open
            self.open = self.open or opens
            return opens


class GuardedRemote:
    """A shared store that can't fail or stall a build.

    Look-ups and uploads are counted separately. A store that is read-only, as in a pull request's CI, still answers
    look-ups. One whose look-ups fail is down, and gets no uploads either.
    """

    def __init__(self, remote: Remote, limits: Limits, notices: Notices, count: Callable[[str], None]) -> None:
        """Use ``remote``; ``count`` gets "uploads" or "upload_failures" for each upload."""
        self.name = remote.name
        self._remote = remote
        self._limits = limits
        self._notices = notices
        self._count = count
        self._lookups = _Breaker(limits.failures)
        self._writes = _Breaker(limits.failures)
        self._uploads = Uploads(self._upload, limits.upload_threads, limits.queued_bytes)

    def read(self, path: str) -> bytes | None:
        """Return a blob; None if there is none, or it does not come in time."""
        if self._lookups.open:
            return None
        try:
            blob = within(self._limits.lookup_seconds, lambda: self._remote.read(path))
        except Exception as error:
            if self._lookups.failed():
                self._notices.once("remote", f"{self.name} is not used for the rest of this build: {reason_of(error)}")
            return None
        self._lookups.succeeded()
        return blob

    def offer(self, path: str, blob: bytes) -> None:
        """Upload a blob in the background, unless too much waits for that already."""
        if self._is_closed_to_writes() or not self._uploads.offer(path, blob):
            self._count("upload_failures")

    def _is_closed_to_writes(self) -> bool:
        return self._lookups.open or self._writes.open

    def _upload(self, path: str, blob: bytes) -> None:
        if self._is_closed_to_writes():
            self._count("upload_failures")
            return
        try:
            within(self._limits.upload_seconds, lambda: self._remote.write(path, blob))
        except Exception as error:
            self._count("upload_failures")
            if self._writes.failed() and not self._lookups.open:
                self._notices.once("uploads", f"nothing more is uploaded to {self.name}: {reason_of(error)}")
        else:
            self._count("uploads")
            self._writes.succeeded()

    def close(self, seconds: float) -> None:
        """Wait for the uploads, that long at most (not at all where nothing is taken); later ones are refused."""
        waiting, running = self._uploads.close(0.0 if self._is_closed_to_writes() else seconds)
        for _ in range(waiting):  # those that run are counted when they end
            self._count("upload_failures")
        if (waiting or running) and not self._is_closed_to_writes():
            self._notices.once("uploads", f"{waiting + running} uploads to {self.name} were not done in {seconds:g} s")


class Uploads:
    """A bounded queue of blobs and the threads that empty it."""

    def __init__(self, upload: Callable[[str, bytes], None], threads: int, limit_bytes: int) -> None:
        """Call ``upload``, which must not raise, from ``threads`` threads; they start with the first blob."""
        self._upload = upload
        self._threads = threads
        self._limit_bytes = limit_bytes
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._waiting_bytes = 0
        self._running = 0
        self._started = 0
        self._closed = False
        self._changed = threading.Condition()

    def offer(self, path: str, blob: bytes) -> bool:
        """Queue a blob; False if the queue is full or closed. One blob always fits into an empty queue."""
        with self._changed:
            full = self._waiting and self._waiting_bytes + len(blob) > self._limit_bytes
            if self._closed or full:
                return False
            self._waiting.append((path, blob))
            self._waiting_bytes += len(blob)
            self._changed.notify_all()
            if self._started < self._threads:
                self._started += 1
                threading.Thread(target=self._work, name="attnforge-upload", daemon=True).start()
        return True

    def _work(self) -> None:
        while (item := self._next()) is not None:
            try:
                self._upload(*item)
            finally:
                del item  # or the last blob lives as long as the thread
                with self._changed:
                    self._running -= 1
                    self._changed.notify_all()

    def _next(self) -> tuple[str, bytes] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            item = self._waiting.popleft()
            self._waiting_bytes -= len(item[1])
            self._running += 1
            return item

    def close(self, seconds: float) -> tuple[int, int]:
        """Take no more, wait that long at most for what is queued; return how many still waited and how many run.

        Those that waited are dropped.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._waiting and not self._running, deadline - time.monotonic())
            waiting = len(self._waiting)
            self._waiting.clear()
            return waiting, self._running
