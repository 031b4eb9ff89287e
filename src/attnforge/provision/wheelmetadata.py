"""The metadata of a wheel on an index, without the wheel where that can be.

An index may serve it as a separate file (PEP 658). Else the wheel's end is asked for, where a zip archive has its
table of contents, and then the part with METADATA. A server that knows no ranges sends the whole.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

from attnforge.errors import HostError
from attnforge.provision.indexes import IndexSettings, find_packages, local_path, network_errors, session
from attnforge.wheelfile.archive import UNREADABLE, document

if TYPE_CHECKING:
    from unearth import Package

_BLOCK = 1 << 16  # bytes asked for at once: a table of contents has some hundred kB
_WHOLE = {"Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class WheelOnIndex:
    """A wheel on an index: its version, file name and URL, and the URL of its metadata, "" where the index has none."""

    version: str
    filename: str
    url: str = field(repr=False)
    metadata_url: str = field(repr=False)


def wheels_of(name: str, settings: IndexSettings) -> tuple[WheelOnIndex, ...]:
    """Return the wheels of a package on the configured indexes, () where none has it; yanked ones are left out.

    HostError where an index could not be asked.
    """
    packages = find_packages(name, settings)
    return tuple(_wheel(one) for one in packages if one.link.is_wheel and one.version and not one.link.is_yanked)


def _wheel(package: Package) -> WheelOnIndex:
    link = package.link
    apart = link.dist_info_link.url_without_fragment if link.dist_info_link else ""
    return WheelOnIndex(str(package.version), link.filename, link.url_without_fragment, apart)


def read_metadata(wheel: WheelOnIndex, settings: IndexSettings) -> str:
    """Return the text of a wheel's METADATA. HostError where it can't be had, or where the file is no wheel."""
    with network_errors(f"the metadata of {wheel.filename} can't be read"):
        if wheel.metadata_url and not wheel.metadata_url.startswith("file:"):
            return _text_at(wheel.metadata_url, settings)
        with _opened(wheel, settings) as archive:
            return _metadata_in(archive, wheel.filename)


def _text_at(url: str, settings: IndexSettings) -> str:
    with session(settings) as client:
        answer = client.get(url)
        answer.raise_for_status()
        return str(answer.content.decode(errors="replace"))


@contextmanager
def _opened(wheel: WheelOnIndex, settings: IndexSettings) -> Iterator[IO[bytes]]:
    if wheel.url.startswith("file:"):
        with open(local_path(wheel.url), "rb") as archive:  # noqa: PTH123
            yield archive
        return
    with session(settings) as client:
        size = _size_if_ranged(client, wheel.url)
        if size:
            yield io.BufferedReader(_Ranged(client, wheel.url, size), _BLOCK)
            return
        with TemporaryFile() as archive, client.stream("GET", wheel.url, headers=_WHOLE) as answer:
            answer.raise_for_status()
            for chunk in answer.iter_raw():
                archive.write(chunk)
            yield archive


def _size_if_ranged(client: Any, url: str) -> int:
    """Return the size in bytes of a file that the server sends parts of, 0 for another server."""
    with client.stream("GET", url, headers={**_WHOLE, "Range": "bytes=0-0"}) as answer:
        answer.raise_for_status()
        stated = re.fullmatch(r"bytes 0-0/(\d+)", answer.headers.get("Content-Range", ""))
        return int(stated[1]) if answer.status_code == 206 and stated else 0


class _Ranged(io.RawIOBase):
    """A file on a server, read in the parts that are asked for."""

    def __init__(self, client: Any, url: str, size: int) -> None:
        self._client, self._url, self._size, self._at = client, url, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        last = self._at + wanted - 1
        answer = self._client.get(self._url, headers={**_WHOLE, "Range": f"bytes={self._at}-{last}"})
        answer.raise_for_status()
        data = answer.content
        if answer.status_code != 206 or len(data) != wanted:
            raise OSError(f"the server sent {len(data):,} bytes where {wanted:,} were asked for")
        buffer[:wanted] = data
        self._at += wanted
        return wanted


def _metadata_in(archive: IO[bytes], filename: str) -> str:
    try:
        found = document(archive, "METADATA")
        why = "it has no METADATA"
    except UNREADABLE as error:
        found, why = None, str(error) or type(error).__name__
    if found is None:
        raise HostError(
            f"{filename} on the package index can't be read as a wheel",
            why=why,
            hint="download it again where it is kept, or take another index",
        )
    return found.decode(errors="replace")
