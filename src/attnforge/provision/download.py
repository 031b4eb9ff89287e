"""Downloads files of known size and SHA-256: several at once, resumed where a download was interrupted."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attnforge.errors import HostError
from attnforge.files import disk_errors, file_sha256
from attnforge.model.events import Downloaded, Downloading, Observer, ignore
from attnforge.process import redact
from attnforge.provision.indexes import IndexSettings, local_path, network_errors, session
from attnforge.provision.store import locked

_AT_ONCE = 4
_ATTEMPTS = 4  # in a row that bring no byte
_CHUNK = 1 << 18
_LOOK = 0.5  # seconds between two reports of progress
_FINAL = {400, 401, 403, 404, 405, 407, 410, 451}  # asking again would bring the same answer


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file: its name in messages, its URL or path, its size in bytes, its SHA-256 in hex."""

    name: str
    url: str = field(repr=False)
    size: int
    sha256: str


class _StoppedError(Exception):
    """Another download failed, or the user ended the build."""


class _RestartError(Exception):
    """The server does not resume the download."""


class _RefusedError(HostError):
    """The server does not have the file: another attempt would fail, too."""


def download(
    wanted: Sequence[Wanted],
    folder: Path,
    settings: IndexSettings,
    observe: Observer = ignore,
    *,
    hint: str = "",
    pause: float = 1.0,
) -> dict[str, Path]:
    """Return the files by SHA-256, each in ``folder`` under its hash; a file that is there is not fetched again.

    A file is there whole or not at all. Of one that broke off, also in a process that was killed, the part is kept and
    the rest is asked for. ``pause`` is the time in seconds before a server that failed is asked again, ``hint`` what
    helps where it has not what is wanted. Raises HostError where a file can't be had or is another one than wanted,
    and where the disk is full; the other downloads are stopped then, and their parts kept.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    run = _Run(folder, settings, hint, pause)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        work = {pool.submit(run.fetch, one): one for one in {one.sha256: one for one in wanted}.values()}
        try:
            _follow(work, run, observe)
        except BaseException:
            run.stop.set()
            raise
    return {one.sha256: folder / one.sha256 for one in wanted}


def _follow(work: dict[Future[Downloaded], Wanted], run: _Run, observe: Observer) -> None:
    """Report progress until all downloads are done, from this thread only. Raise what the first one raised."""
    total = sum(one.size for one in work.values())
    waiting: set[Future[Downloaded]] = set(work)
    while waiting:
        done, waiting = wait(waiting, timeout=_LOOK, return_when=FIRST_COMPLETED)
        for future in done:
            observe(future.result())
        observe(Downloading(min(run.received, total), total))


class _Run:
    """What the downloads of one call share."""

    def __init__(self, folder: Path, settings: IndexSettings, hint: str, pause: float) -> None:
        self.folder, self.settings, self.hint, self.pause = folder, settings, hint, pause
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self._received: dict[str, int] = {}

    @property
    def received(self) -> int:
        """Bytes of all files that are there by now."""
        with self._lock:
            return sum(self._received.values())

    def _note(self, wanted: Wanted, count: int) -> None:
        if self.stop.is_set():
            raise _StoppedError
        with self._lock:
            self._received[wanted.sha256] = count

    def fetch(self, wanted: Wanted) -> Downloaded:
        """Fetch a file. Each one is fetched in its own thread."""
        began = time.monotonic()
        place = self.folder / wanted.sha256
        with locked(place), disk_errors(self.folder):
            kept = self._kept(place, wanted)
            if kept < wanted.size or not place.exists():
                part = place.with_name(f"{place.name}.part")
                self._fetch_checked(wanted, part, resumed=kept > 0)
                part.replace(place)
        self._note(wanted, wanted.size)
        return Downloaded(wanted.name, wanted.size, kept, time.monotonic() - began)

    @staticmethod
    def _kept(place: Path, wanted: Wanted) -> int:
        """Return how many bytes an earlier download left; a whole file with another hash is removed."""
        part = place.with_name(f"{place.name}.part")
        if place.is_file():
            if file_sha256(place) == wanted.sha256:
                return wanted.size
            place.unlink()
        return _size(part) if _size(part) <= wanted.size else 0

    def _fetch_checked(self, wanted: Wanted, part: Path, *, resumed: bool) -> None:
        """Fetch a file and check its hash. A resumed file with another hash is fetched again from its beginning."""
        self._fetch_whole(wanted, part)
        actual = file_sha256(part)
        if actual == wanted.sha256:
            return
        part.unlink()
        if not resumed:
            raise _wrong_hash(wanted, actual)
        self._fetch_checked(wanted, part, resumed=False)

    def _fetch_whole(self, wanted: Wanted, part: Path) -> None:
        """Fetch what is missing of a file until its size is there."""
        if _size(part) > wanted.size:
            part.unlink()
        idle, most = 0, _size(part)
        while _size(part) < wanted.size:
            failed = self._attempt(wanted, part)
            # Only new bytes count as progress: a server may stop at the same place each time.
            idle, most = (0, _size(part)) if _size(part) > most else (idle + 1, most)
            if idle >= _ATTEMPTS:
                raise failed or _truncated(wanted, _size(part), self.hint)
            if _size(part) < wanted.size:
                self.stop.wait(self.pause)
            self._note(wanted, _size(part))

    def _attempt(self, wanted: Wanted, part: Path) -> HostError | None:
        """Ask once for what is missing; return the error, if any. HostError where another attempt can't help."""
        try:
            with network_errors(f"{wanted.name} could not be fetched from {redact(wanted.url)}"):
                self._receive(wanted, part)
        except _RestartError:
            part.unlink(missing_ok=True)
        except _RefusedError:
            raise
        except HostError as error:
            return HostError(error.what, why=error.why, hint=self.hint or error.hint)
        return None

    def _receive(self, wanted: Wanted, part: Path) -> None:
        """Append the bytes of one answer to ``part``."""
        have = _size(part)
        with part.open("ab") as sink:
            for chunk in self._chunks(wanted, have):
                have += len(chunk)
                if have > wanted.size:
                    raise self._other_size(wanted, f"more than {wanted.size:,}")
                sink.write(chunk)
                self._note(wanted, have)

    def _chunks(self, wanted: Wanted, have: int) -> Iterator[bytes]:
        if "://" not in wanted.url or wanted.url.startswith("file:"):
            yield from self._copied(wanted, have)
            return
        asked = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
        with session(self.settings) as client, client.stream("GET", wanted.url, headers=asked) as response:
            self._check_answer(response, wanted, have)
            # Unbuffered: httpx would lose what it has gathered when the connection breaks.
            yield from response.iter_raw()

    def _copied(self, wanted: Wanted, have: int) -> Iterator[bytes]:
        path = Path(local_path(wanted.url))
        try:
            size = path.stat().st_size
        except OSError as error:
            raise _RefusedError(
                f"{wanted.name} is not in the mirror: {path}", why=str(error), hint=self.hint
            ) from error
        if size != wanted.size:
            raise self._other_size(wanted, f"{size:,}")
        with path.open("rb") as source:
            source.seek(have)
            while chunk := source.read(_CHUNK):
                yield chunk

    def _check_answer(self, response: Any, wanted: Wanted, have: int) -> None:
        """Raise HostError for an answer without the file, _RestartError for one without the rest of it."""
        status = response.status_code
        if status in _FINAL:
            raise _RefusedError(
                f"{wanted.name} can't be downloaded: the server answers {status} {response.reason_phrase}",
                why=redact(wanted.url),
                hint=self.hint,
            )
        if status == 416:
            raise _RestartError
        response.raise_for_status()
        if status == 206:
            answered = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if answered is None or int(answered[1]) != have:
                raise _RestartError
            return
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) != wanted.size:
            raise self._other_size(wanted, f"{int(length):,}")
        if have:
            raise _RestartError

    def _other_size(self, wanted: Wanted, seen: str) -> HostError:
        return _RefusedError(
            f"{wanted.name} is refused: its size is not the pinned one",
            why=f"{wanted.size:,} bytes are wanted, {redact(wanted.url)} has {seen}",
            hint=self.hint,
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _wrong_hash(wanted: Wanted, actual: str) -> HostError:
    return HostError(
        f"{wanted.name} is refused: its SHA-256 is not the pinned one",
        why=f"wanted {wanted.sha256}, {redact(wanted.url)} has {actual}",
        hint="check the mirror and the proxy; the file may have been tampered with",
    )


def _truncated(wanted: Wanted, have: int, hint: str) -> HostError:
    return HostError(f"{wanted.name} ends early: {have:,} of {wanted.size:,} bytes", why=redact(wanted.url), hint=hint)
