"""The other end of the seat: takes the graphs that upstream's build writes and answers when they are done."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from attnforge.compile.graph import ninja
from attnforge.compile.seat import seat
from attnforge.errors import BuildError
from attnforge.files import replacing
from attnforge.model.graph import CompileGraph

Say = Callable[[str], None]
"""Prints a line in upstream's log."""

Handler = Callable[[CompileGraph, Mapping[str, str], Say], int]
"""Makes the objects of a graph, with the environment that upstream gave ninja; returns ninja's exit code."""


def write_seat(folder: Path, python: str, socket_path: Path) -> Path:
    """Write an executable ``ninja`` into ``folder`` that hands its work to the server at ``socket_path``.

    It is a shell script, because a ``#!`` line is cut at 127 or 255 bytes and can't quote a space (execve(2)).
    ``-I -S``: upstream's PYTHONPATH, PYTHONHOME and site packages are another interpreter's.
    """
    parts = [os.fsencode(part) for part in (python, "-I", "-S", seat.__file__, str(socket_path))]
    quoted = b" ".join(os.fsencode(shlex.quote(os.fsdecode(part))) for part in parts)
    path = folder / "ninja"
    with replacing(path, lasting=False) as made:
        made.write_bytes(b"#!/bin/sh\nexec " + quoted + b' "$@"\n')
        made.chmod(0o755)
    return path


class FirstError:
    """Keeps the first error of a build: its real cause. For many threads at once; a lock protects it."""

    def __init__(self) -> None:
        """Begin without one."""
        self.error: BaseException | None = None
        self._lock = threading.Lock()

    def keep(self, error: BaseException) -> None:
        """Keep an error if it is the first."""
        with self._lock:
            if self.error is None:
                self.error = error


class Server:
    """Listens on a Unix socket; each call of ninja is served in its own thread (SageAttention makes several at once).

    The first exception of a handler is kept in ``errors``, so that the build reports it instead of upstream's
    "Error compiling objects for extension".
    """

    def __init__(self, path: Path, handler: Handler, errors: FirstError) -> None:
        """Bind the socket at ``path``, in a folder that only this user can enter: who connects can run commands."""
        self.errors = errors
        self._handler = handler
        self._threads: list[threading.Thread] = []
        self._socket = socket.socket(socket.AF_UNIX)
        where, descriptor = seat.address(str(path))
        try:
            self._socket.bind(where)
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        self._socket.listen(64)
        self._listener = threading.Thread(target=self._listen, name="seat", daemon=True)
        self._listener.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Accept no more and wait for what is being served. The handler has to have been told to end."""
        try:
            # close() does not wake a thread that is in accept().
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return
        self._socket.close()
        self._listener.join()
        for thread in self._threads:
            thread.join()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), name="ninja", daemon=True)
            self._threads = [other for other in self._threads if other.is_alive()] + [thread]
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("r", encoding="utf-8") as requests:
            request = requests.readline()
            if not request.endswith("\n"):
                return  # The seat was ended before it had asked.
            send = _Sender(connection)
            try:
                code = self._answer(json.loads(request), send.line)
            except BaseException as error:
                self.errors.keep(error)
                send.line(f"attnforge: {error}")
                code = 1
            send.exit(code)

    def _answer(self, request: Mapping[str, object], say: Say) -> int:
        graph = _graph(request)
        if request["dry_run"]:
            for number, unit in enumerate(graph.units, start=1):
                say(f"[{number}/{len(graph.units)}] {shlex.join(unit.argv)}")
            return 0
        environment = request["environment"]
        assert isinstance(environment, dict)
        return self._handler(graph, environment, say)


class _Sender:
    """Writes answers. A seat that has ended (upstream was stopped) is not an error: the objects are still kept."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def line(self, text: str) -> None:
        for line in text.splitlines():
            self._send({"line": line})

    def exit(self, code: int) -> None:
        self._send({"exit": code})

    def _send(self, answer: Mapping[str, object]) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(answer).encode() + b"\n")


def _graph(request: Mapping[str, object]) -> CompileGraph:
    cwd, file, targets = request["cwd"], request["file"], request["targets"]
    assert isinstance(cwd, str) and isinstance(file, str) and isinstance(targets, list)
    path = Path(cwd) / file
    try:
        text = _read(str(path))
    except OSError as error:
        raise BuildError(f"ninja was called for {path}, which can't be read", why=str(error)) from error
    return ninja.parse(text, cwd, _read, targets)


def _read(path: str) -> str:
    # A path need not be UTF-8: it comes back as the bytes that it was.
    return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
