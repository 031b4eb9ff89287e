"""Ends every program that attnforge started, and removes its temporary folders, also where attnforge is killed.

One process does it, the reaper (``reaper.py``). Where someone kills that, another one takes its place.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attnforge.process import reaper

# The child announces its own session before it becomes the program: from then on the reaper knows of it, and before
# that there is nothing to leave behind. Its standard output is the reaper's pipe until the exec.
_ANNOUNCE = 'echo "+$$"; exec "$@" 1>&2'

# How often a folder is tried to be removed while something that was killed still writes to it.
_TRIES = 5


class Guard:
    """Knows what runs and which folders are temporary, and has a reaper that knows it too. For many threads."""

    def __init__(self) -> None:
        """Start the reaper, and a thread that replaces it where it ends."""
        self._lock = threading.Lock()
        self._sessions: set[int] = set()
        self._folders: set[Path] = set()
        # We hold both ends: a program can announce itself while there is no reaper, and the next one reads it.
        self._source, self._pipe = os.pipe()
        self._closed = False
        self._reaper = self._started()
        threading.Thread(target=self._replace, name="guard", daemon=True).start()

    @property
    def reaper(self) -> int:
        """The reaper's process id."""
        return self._reaper.pid

    def start(self, argv: Sequence[str], first: str = "true", **options: Any) -> subprocess.Popen[Any]:
        """Start a program in a session of its own. ``stderr`` among Popen's options gets all that it prints.

        ``first`` is a command of a shell's that its process runs before it becomes the program. A program that is
        missing is code 127, as in a shell. OSError where its folder is missing.
        """
        process: subprocess.Popen[Any] = subprocess.Popen(
            ["/bin/sh", "-c", f"{first}; {_ANNOUNCE}", "sh", *argv],
            stdin=subprocess.DEVNULL,
            stdout=self._pipe,
            start_new_session=True,
            **options,
        )
        self.began(process.pid)
        return process

    def began(self, session: int) -> None:
        """End a session where attnforge is killed."""
        with self._lock:
            self._sessions.add(session)
            self._tell(f"+{session}")

    def ended(self, session: int) -> None:
        """Leave a session alone: it has ended."""
        with self._lock:
            self._sessions.discard(session)
            self._tell(f"-{session}")

    def remove_later(self, folder: Path) -> None:
        """Remove a folder, which need not be there yet, where attnforge is killed."""
        folder = folder.absolute()  # the reaper is in another folder
        with self._lock:
            self._folders.add(folder)
            self._tell(f">{folder}")

    def remove(self, folder: Path) -> None:
        """Remove a folder now, as far as the system lets us."""
        for _ in range(_TRIES):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.05)
        self.forget(folder)

    def forget(self, folder: Path) -> None:
        """Leave a folder alone: someone else removes it."""
        folder = folder.absolute()
        with self._lock:
            self._folders.discard(folder)
            self._tell(f"<{folder}")

    def close(self) -> None:
        """Wait for the reaper, which cleans up what is left."""
        self._closed = True
        with self._lock:
            os.close(self._pipe)
            self._pipe = -1
        with suppress(subprocess.TimeoutExpired):
            self._reaper.wait(timeout=20)

    def _tell(self, line: str) -> None:
        if self._pipe >= 0 and "\n" not in line:
            os.write(self._pipe, os.fsencode(line) + b"\n")

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", reaper.__file__],
            stdin=self._source,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def _replace(self) -> None:
        """Start another reaper where one ends before attnforge does, and tell it all that the first one knew."""
        while True:
            self._reaper.wait()
            with self._lock:
                if self._closed:
                    return
                with suppress(OSError):  # The system has no process left: tried again.
                    self._reaper = self._started()
                for line in (*(f"+{one}" for one in self._sessions), *(f">{one}" for one in self._folders)):
                    self._tell(line)
            time.sleep(0.1)


_guards: dict[int, Guard] = {}
_making = threading.Lock()


def guard() -> Guard:
    """Return the guard of this process, made at the first call. A process that was forked has its own."""
    with _making:
        if os.getpid() not in _guards:
            _guards[os.getpid()] = made = Guard()
            atexit.register(made.close)
        return _guards[os.getpid()]


def make_temporary(prefix: str, parent: Path | None = None) -> Path:
    """Make a temporary folder that only this user can enter, and that is removed where attnforge is killed. OSError."""
    folder = (parent or Path(tempfile.gettempdir())).absolute() / f"{prefix}{secrets.token_hex(4)}"
    guard().remove_later(folder)  # Before it is there: nothing can come between.
    try:
        folder.mkdir(mode=0o700)
    except OSError:
        guard().forget(folder)  # it may be another program's
        raise
    return folder


@contextmanager
def temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Yield a temporary folder, and remove it at the end, however that comes."""
    folder = make_temporary(prefix, parent)
    try:
        yield folder
    finally:
        guard().remove(folder)


@contextmanager
def removed(folder: Path) -> Iterator[None]:
    """Have someone else's temporary folder removed where attnforge is killed meanwhile."""
    guard().remove_later(folder)
    try:
        yield
    finally:
        guard().forget(folder)
