"""The step cache: a local folder first, then a shared store; entries of both are used only after a check."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from attnforge.compile.reuse.cache.entry import BadEntryError, Seal, pack, unpack
from attnforge.compile.reuse.cache.guard import GuardedRemote, Limits, Remote
from attnforge.compile.reuse.cache.local import LocalStore
from attnforge.compile.reuse.cache.notices import Notices


@dataclass(frozen=True, slots=True)
class Stats:
    """What a cache did so far. ``refused`` entries did not prove that they belong to their key; each is a miss, too.

    ``upload_failures`` counts what failed, what was given up on and what the full queue did not take.
    """

    hits_local: int = 0
    hits_remote: int = 0
    misses: int = 0
    stored: int = 0
    refused: int = 0
    uploads: int = 0
    upload_failures: int = 0


class StepCache:
    """Outputs of pure compile steps, by key (hex SHA-256 of all that goes into the step). For many threads at once.

    Nothing that happens to a folder or a store makes a call fail or wait for long: it warns, once for each cause.

    The secret seals local entries as it does shared ones: an entry goes from one to the other byte by byte, a cache
    folder on a shared disk is protected as well, and what was taken from a store before the secret was set does not
    count after it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limit_bytes: int,
        remote: Remote | None = None,
        secret: bytes = b"",
        warn: Callable[[str], None],
        limits: Limits | None = None,
    ) -> None:
        """Use ``folder``, at most ``limit_bytes`` after each build, and a shared store within ``limits``.

        ``warn`` is called from any thread, by one at a time.
        """
        notices = Notices(warn)
        self._local = LocalStore(folder, limit_bytes, notices)
        self._remote = GuardedRemote(remote, limits or Limits(), notices, self._count) if remote else None
        self._seal = Seal.of(secret)
        self._notices = notices
        self._folder = folder
        self._stats = Stats()
        self._lock = threading.Lock()

    @property
    def stats(self) -> Stats:
        """What was counted so far."""
        return self._stats

    def get(self, key: str) -> dict[str, bytes] | None:
        """Return the outputs of a step, by role; None if they are not known. ValueError for a bad key."""
        path = self._seal.path(key)
        outputs = self._get_local(key, path)
        if outputs is None and self._remote:
            outputs = self._get_remote(key, path, self._remote)
        if outputs is None:
            self._count("misses")
        return outputs

    def put(self, key: str, outputs: Mapping[str, bytes]) -> None:
        """Store the outputs of a step: here at once, in the shared store when it comes to that.

        ValueError for a bad key, for outputs without a proper name and for more than 1 GiB.
        """
        path, blob = self._seal.path(key), pack(key, outputs, self._seal)
        if self._local.write(path, blob):
            self._count("stored")
        if self._remote:
            self._remote.offer(path, blob)

    def close(self, seconds: float = 30.0) -> None:
        """Wait for uploads, ``seconds`` at most, and bring the folder down to its limit."""
        if self._remote:
            self._remote.close(seconds)
        self._local.trim()

    def _get_local(self, key: str, path: str) -> dict[str, bytes] | None:
        blob = self._local.read(path)
        outputs = self._opened(key, blob, str(self._folder)) if blob is not None else None
        if outputs is not None:
            self._count("hits_local")
        elif blob is not None:
            self._local.discard(path)
        return outputs

    def _get_remote(self, key: str, path: str, remote: GuardedRemote) -> dict[str, bytes] | None:
        blob = remote.read(path)
        outputs = self._opened(key, blob, remote.name) if blob is not None else None
        if blob is not None and outputs is not None:
            self._local.write(path, blob)
            self._count("hits_remote")
        return outputs

    def _opened(self, key: str, blob: bytes, where: str) -> dict[str, bytes] | None:
        try:
            return unpack(key, blob, self._seal)
        except BadEntryError as error:
            self._count("refused")
            self._notices.once(
                f"refused by {where}", f"an entry of the compile cache in {where} was not used: {error} (key {key})"
            )
            return None

    def _count(self, name: str) -> None:
        with self._lock:
            self._stats = replace(self._stats, **{name: getattr(self._stats, name) + 1})
