"""A package index on the loopback interface."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from packaging.utils import canonicalize_name

from standins.loopback import Handler, served


@dataclass
class Index:
    """An index that is being served.

    ``hashes`` are stated in place of the true ones, by file name. A file whose name is in ``held`` is not delivered
    until it is taken out; ``asked`` is set when it is asked for. ``metadata`` has the index serve each wheel's METADATA
    apart (PEP 658), ``ranges`` parts of files; ``sent`` counts the bytes of files.
    """

    url: str
    files: dict[str, Path]
    hashes: dict[str, str] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    asked: threading.Event = field(default_factory=threading.Event)
    metadata: bool = False
    ranges: bool = False
    sent: int = 0

    def page(self, project: str) -> str:
        """Return a project's page of links (PEP 503), or "" for one that is not there."""
        links = [self._link(name) for name in sorted(self.files) if canonicalize_name(name.split("-")[0]) == project]
        return "<!DOCTYPE html><body>" + "".join(links) + "</body>" if links else ""

    def _link(self, name: str) -> str:
        digest = self.hashes.get(name) or hashlib.sha256(self.files[name].read_bytes()).hexdigest()
        apart = ' data-dist-info-metadata="true"' if self.metadata and name.endswith(".whl") else ""
        return f'<a href="/files/{name}#sha256={digest}"{apart}>{name}</a>\n'

    def metadata_of(self, name: str) -> bytes:
        """Return the METADATA of a wheel that is served."""
        with zipfile.ZipFile(self.files[name]) as wheel:
            (path,) = (path for path in wheel.namelist() if path.endswith(".dist-info/METADATA"))
            return wheel.read(path)


class _Handler(Handler[Index]):
    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        kind, _, name = self.path.strip("/").partition("/")
        if kind == "files" and name in self.told.files:
            while name in self.told.held:
                self.told.asked.set()
                time.sleep(0.02)
            self._send(self.told.files[name].read_bytes())
        elif kind == "files" and self.told.metadata and name.removesuffix(".metadata") in self.told.files:
            self._answer("text/plain", self.told.metadata_of(name.removesuffix(".metadata")))
        elif kind == "simple" and self.told.page(name):
            self._answer("text/html", self.told.page(name).encode())
        else:
            self.send_error(404)

    def _send(self, data: bytes) -> None:
        """Send a file, or the part of it that is asked for."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if asked is None or not self.told.ranges:
            self.told.sent += len(data)
            self._answer("application/octet-stream", data)
            return
        part = data[int(asked[1]) : int(asked[2]) + 1]
        self.told.sent += len(part)
        told = f"bytes {asked[1]}-{int(asked[1]) + len(part) - 1}/{len(data)}"
        self._answer("application/octet-stream", part, {"Content-Range": told})

    def _answer(self, kind: str, data: bytes, more: Mapping[str, str] | None = None) -> None:
        self.send_response(206 if more else 200)
        for name, value in (more or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            with suppress(ConnectionError):  # who asked may have been ended
                self.wfile.write(data)


@contextmanager
def serve(*places: Path, hashes: Mapping[str, str] | None = None) -> Iterator[Index]:
    """Serve the wheels and archives of folders, and files."""
    found = [path for place in places for path in (place.iterdir() if place.is_dir() else [place])]
    index = Index("", {path.name: path for path in found}, dict(hashes or {}))
    with served(partial(_Handler, index)) as url:
        index.url = f"{url}/simple"
        yield index


def closed_url() -> str:
    """Return the URL of an index on a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/simple"
