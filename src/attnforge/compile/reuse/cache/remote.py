"""Shared stores: a folder, or what OpenDAL reaches (S3, Google Cloud Storage, Azure, Redis, WebDAV)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from attnforge.compile.reuse.cache.entry import MAX_ENTRY_BYTES
from attnforge.compile.reuse.cache.guard import Remote, reason_of, within
from attnforge.compile.reuse.cache.local import read_bounded
from attnforge.compile.reuse.cache.location import CREDENTIAL_VARIABLES, FORMS, Location, Service, parse, service_of
from attnforge.errors import HostError, RequestError
from attnforge.files import write_whole

if TYPE_CHECKING:
    import opendal

# An operation whose caller gave up on it ends by itself after this time, so that its thread does.
_OPERATION_SECONDS = 60.0


class StoreError(Exception):
    """An operation on a shared store failed; the text has no credentials."""


class FolderRemote:
    """A folder that several machines share. It is made when something is written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = f"file://{folder}"

    def read(self, path: str) -> bytes | None:
        """Return a blob, None if there is none; OSError."""
        return read_bounded(self._folder / path)

    def write(self, path: str, blob: bytes) -> None:
        """Write a blob; OSError."""
        write_whole(self._folder / path, blob)

    def delete(self, path: str) -> None:
        """Remove a blob; OSError."""
        (self._folder / path).unlink(missing_ok=True)


class OpenDalRemote:
    """A store that OpenDAL reaches. Failures are StoreErrors in one line, with every one of ``hidden`` taken out."""

    def __init__(self, name: str, operator: opendal.Operator, hidden: Iterable[str] = ()) -> None:
        self.name = name
        self._operator = operator
        self._hidden = tuple(hidden)

    def read(self, path: str) -> bytes | None:
        """Return a blob, None if there is none. Never more than an entry has at most, and a piece."""
        data = bytearray()
        try:
            # Not Operator.read(), which takes into memory whatever somebody put there.
            with self._operator.open(path, "rb") as file:
                while len(data) <= MAX_ENTRY_BYTES and (piece := file.read(2**22)):
                    data += piece
        except Exception as error:
            if self._is_absent(path, error):
                return None
            raise self._failure(error) from None
        return bytes(data)

    def _is_absent(self, path: str, error: Exception) -> bool:
        # An opened file knows but one class of errors (OSError), whose text begins with OpenDAL's own kind. Should that
        # change, the store is asked again.
        if str(error).startswith("NotFound"):
            return True
        try:
            return not self._operator.exists(path)
        except Exception as again:
            raise self._failure(again) from None

    def write(self, path: str, blob: bytes) -> None:
        """Write a blob."""
        try:
            self._operator.write(path, blob)
        except Exception as error:
            raise self._failure(error) from None

    def delete(self, path: str) -> None:
        """Remove a blob, if it is there."""
        try:
            self._operator.delete(path)
        except Exception as error:
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> StoreError:
        return StoreError(summary(str(error), self._hidden))


def summary(text: str, hidden: Iterable[str]) -> str:
    """Return what an error of OpenDAL says, without its context (URLs with signatures) and its backtrace."""
    kind = text.partition(" ")[0]
    said = text.partition("=> ")[2].partition("\n")[0].strip()
    source = text.partition("Source:\n")[2].strip().partition("\n")[0].strip()
    line = ": ".join(part for part in (kind, said, source) if part)
    for value in hidden:
        line = line.replace(value, "***").replace(quote(value, safe=""), "***")
    return line[:300]


def open_remote(url: str, environ: Mapping[str, str]) -> Remote:
    """Return the store of a URL (``location.FORMS``). Nothing is read from it yet: ``check_remote`` does that.

    RequestError if the URL can't be used, HostError where OpenDAL is missing.
    """
    location = parse(url)
    if location.scheme == "file":
        return FolderRemote(_folder(location))
    service = service_of(location, environ)
    return OpenDalRemote(location.name, _operator(location, service), service.secrets)


def _folder(location: Location) -> Path:
    if location.host or len(location.path) < 2:
        raise RequestError("the shared folder is not an absolute path", hint=f"give the store as {FORMS}")
    return Path(location.path)


def _operator(location: Location, service: Service) -> opendal.Operator:
    # Not Operator.from_uri: in 0.47.12 it knows neither gs nor rediss nor webdavs, takes webdav for HTTPS, and ignores
    # unknown options. Of our options it would read bucket and root; the others come from variables.
    try:
        import opendal
        from opendal.layers import TimeoutLayer
    except ImportError as error:
        raise HostError(
            f"{location.name} can't be opened without OpenDAL", why=str(error), hint='pip install "opendal>=0.47.12"'
        ) from error
    try:
        operator: opendal.Operator = cast(Any, opendal.Operator)(service.scheme, **service.options)
        return operator.layer(TimeoutLayer(timeout=_OPERATION_SECONDS, io_timeout=_OPERATION_SECONDS))
    except Exception as error:
        raise RequestError(
            f"{location.name} can't be opened", why=summary(str(error), service.secrets), hint=f"give it as {FORMS}"
        ) from None


def check_remote(remote: Remote, seconds: float = 5.0) -> str:
    """Write, read and delete a probe in a store, ``seconds`` each at most, and say in one line what came of it.

    HostError if it can't be written or read. A store that refuses to delete is fine: a build deletes
    nothing there.
    """
    path, blob, began = f"probe/{secrets.token_hex(16)}", secrets.token_bytes(64), time.monotonic()
    try:
        within(seconds, lambda: remote.write(path, blob))
        found = within(seconds, lambda: remote.read(path))
    except Exception as error:
        raise _unusable(remote, reason_of(error)) from error
    if found != blob:
        raise _unusable(remote, "it does not return what was written to it")
    then = "deleted" if _delete_probe(remote, path, seconds) else "could not delete"
    return f"{remote.name}: wrote, read and {then} a probe in {time.monotonic() - began:.2f} s"


def _delete_probe(remote: Remote, path: str, seconds: float) -> bool:
    with suppress(Exception):
        within(seconds, lambda: remote.delete(path))
        return True
    return False


def _unusable(remote: Remote, why: str) -> HostError:
    variables = ", ".join(CREDENTIAL_VARIABLES)
    return HostError(
        f"the shared store {remote.name} can't be used",
        why=why,
        hint="check its address, and the credentials: the variables that the cloud's own tools read, for Redis and "
        f"WebDAV {variables} (S3 calls a missing entry forbidden unless s3:ListBucket is allowed)",
    )
