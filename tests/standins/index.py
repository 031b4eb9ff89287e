"""A package index on the loopback interface."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from packaging.utils import canonicalize_name


@dataclass
class Index:
    """An index that is being served.

    ``hashes`` are stated in place of the true ones, by file name. A file whose name is in ``held`` is not delivered
    until it is taken out; ``asked`` is set when it is asked for.
    """

    url: str
    files: dict[str, Path]
    hashes: dict[str, str] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    asked: threading.Event = field(default_factory=threading.Event)

    def page(self, project: str) -> str:
        """Return a project's page of links (PEP 503), or "" for one that is not there."""
        links = [self._link(name) for name in sorted(self.files) if canonicalize_name(name.split("-")[0]) == project]
        return "<!DOCTYPE html><body>" + "".join(links) + "</body>" if links else ""

    def _link(self, name: str) -> str:
        digest = self.hashes.get(name) or hashlib.sha256(self.files[name].read_bytes()).hexdigest()
        return f'<a href="/files/{name}#sha256={digest}">{name}</a>\n'


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, index: Index, *arguments: object) -> None:
        self.index = index
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        kind, _, name = self.path.strip("/").partition("/")
        if kind == "files" and name in self.index.files:
            while name in self.index.held:
                self.index.asked.set()
                time.sleep(0.02)
            self._answer("application/octet-stream", self.index.files[name].read_bytes())
        elif kind == "simple" and self.index.page(name):
            self._answer("text/html", self.index.page(name).encode())
        else:
            self.send_error(404)

    def _answer(self, kind: str, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            with suppress(ConnectionError):  # who asked may have been ended
                self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serve(*places: Path, hashes: Mapping[str, str] | None = None) -> Iterator[Index]:
    """Serve the wheels and archives of folders, and files."""
    found = [path for place in places for path in (place.iterdir() if place.is_dir() else [place])]
    index = Index("", {path.name: path for path in found}, dict(hashes or {}))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, index)) as server:
        index.url = f"http://127.0.0.1:{server.server_port}/simple"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield index
        finally:
            server.shutdown()
            thread.join()


def closed_url() -> str:
    """Return the URL of an index on a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/simple"
