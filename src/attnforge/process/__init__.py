"""Runs other programs: argument list, explicit environment and folder, time limit, captured output.

None of them outlives attnforge (``guard``).
"""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from attnforge.process.guard import guard

_SECRET = re.compile(r"(?P<scheme>\w+://)[^/@\s:]+(?::[^/@\s]*)?@")


def redact(text: str) -> str:
    """Return the text with the credentials of URLs taken out."""
    return _SECRET.sub(r"\g<scheme>***@", text)


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run: nothing of it is read by a shell. ``timeout`` in seconds, None for no limit."""

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    timeout: float | None = None

    def __str__(self) -> str:
        import shlex

        return redact(shlex.join(self.argv))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended. A negative ``code`` is the signal that ended it; ``timed_out`` says that we did."""

    code: int
    output: str
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        """Whether it exited with 0."""
        return self.code == 0


class Runner(Protocol):
    """Runs a command to its end. Raises FileNotFoundError or PermissionError where the program can't be started."""

    def __call__(self, command: Command, log: IO[str] | None = None) -> Outcome:
        """Run ``command``; what it prints is returned and also written to ``log`` as it comes."""
        ...


def run(command: Command, log: IO[str] | None = None) -> Outcome:
    """Run a command in its own session; stdout and stderr come back as one text and go to ``log`` as they come.

    When the time limit is over, or an exception (Ctrl-C) arrives, or attnforge is killed, the session is ended, too.
    """
    _find(command)
    with guard().start(
        command.argv, cwd=command.cwd, env=dict(command.env), stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        try:
            return _outcome(process, command.timeout, log)
        except BaseException:
            kill_group(process.pid)
            raise
        finally:
            guard().ended(process.pid)


def _find(command: Command) -> None:
    """Raise FileNotFoundError or PermissionError where a program can't be started: a shell tells that by a code."""
    name, searched = command.argv[0], command.env.get("PATH", os.defpath)
    places = [command.cwd / name] if "/" in name else [Path(folder, name) for folder in searched.split(os.pathsep)]
    there = [place for place in places if place.is_file()]
    if any(os.access(place, os.X_OK) for place in there):
        return
    refused, number = (PermissionError, errno.EACCES) if there else (FileNotFoundError, errno.ENOENT)
    raise refused(number, os.strerror(number), name)


def _outcome(process: subprocess.Popen[str], timeout: float | None, log: IO[str] | None) -> Outcome:
    if log is not None:
        output = _tee(process, log)
        return Outcome(process.returncode, redact(output))
    try:
        _, output = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill_group(process.pid)
        _, output = process.communicate()
        return Outcome(process.returncode, redact(output), timed_out=True)
    return Outcome(process.returncode, redact(output))


def _tee(process: subprocess.Popen[str], log: IO[str]) -> str:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        log.write(redact(line))
        log.flush()
    process.wait()
    return "".join(lines)


class Conversation:
    """A program that answers each line on its stdin with a line on its stdout; in its own process group.

    What it prints to stderr is kept, for when it dies. Use it as a context manager: on leaving, the whole group is
    ended. Raises FileNotFoundError or PermissionError where the program can't be started.
    """

    def __init__(self, command: Command) -> None:
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  # closed on leaving
        try:
            self._process = subprocess.Popen(
                command.argv,
                cwd=command.cwd,
                env=dict(command.env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._words,
                bufsize=0,
                start_new_session=True,
            )
        except OSError:
            self._words.close()
            raise
        guard().began(self._process.pid)
        self._unread = b""

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._words.close()

    def ask(self, line: str, timeout: float) -> str:
        """Send a line and return the line that answers it.

        Raises TimeoutError where none came within ``timeout`` seconds, EOFError where the program ended instead.
        """
        if self._process.returncode is not None:
            raise EOFError
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
        except BrokenPipeError:
            raise EOFError from None
        return self._answer(time.monotonic() + timeout)

    def _answer(self, deadline: float) -> str:
        assert self._process.stdout is not None
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise TimeoutError
            read = os.read(self._process.stdout.fileno(), 1 << 16)
            if not read:
                raise EOFError
            self._unread += read
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode(errors="replace")

    def end(self, grace: float = 5.0) -> int:
        """End the program and its group; return its exit code, or the signal that ended it, negative.

        Its stdin is closed, at which it should end; after ``grace`` seconds it is killed.
        """
        if self._process.returncode is None:
            assert self._process.stdin is not None and self._process.stdout is not None
            self._process.stdin.close()
            # Before it is waited for: then its process id, which is the group's, is still its own.
            self._drain(time.monotonic() + grace)
            kill_group(self._process.pid)
            guard().ended(self._process.pid)
            self._process.wait()
            self._process.stdout.close()
        return self._process.returncode

    def _drain(self, deadline: float) -> None:
        try:
            while True:
                self._unread = b""
                self._answer(deadline)
        except (EOFError, TimeoutError):
            return

    def last_words(self, most: int = 4000) -> str:
        """Return the end of what it printed to stderr, at most so many bytes, without credentials."""
        self._words.seek(max(0, self._words.seek(0, os.SEEK_END) - most))
        return redact(self._words.read().decode(errors="replace"))


def kill_group(pid: int) -> None:
    """End a process group at once. One that has ended already is no error."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def base_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a child needs of our own environment and nothing that changes a build.

    Kept: where the user's configuration and temporary files are, locale, proxies, certificates, and the settings of
    pip, uv and git, so that packages come from where this machine is set up to get them.
    """
    return {key: value for key, value in environ.items() if _KEEP.fullmatch(key)}


_KEEP = re.compile(
    r"HOME|USER|LOGNAME|TMPDIR|LANG|LC_\w+|TZ|TERM|XDG_\w+|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    r"|(?:https?|all|no|ftp)_proxy|(?:HTTPS?|ALL|NO|FTP)_PROXY|PIP_\w+|UV_\w+|NETRC|GIT_\w+|SSH_AUTH_SOCK"
)
