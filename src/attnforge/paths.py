"""Where attnforge keeps things."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from attnforge.errors import HostError


@dataclass(frozen=True, slots=True)
class Folders:
    """The cache folder and the folders in it. All of it can be deleted while no build runs."""

    cache: Path

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Folders:
        """Return the folders that ATTNFORGE_CACHE names, or those under the user's cache folder."""
        named = environ.get("ATTNFORGE_CACHE")
        if named:
            return cls(Path(named).expanduser().absolute())
        if environ.get("XDG_CACHE_HOME"):
            return cls(Path(environ["XDG_CACHE_HOME"]).absolute() / "attnforge")
        home = environ.get("HOME") or str(Path.home())
        return cls(Path(home) / ".cache" / "attnforge")

    @property
    def sources(self) -> Path:
        """Archives by SHA-256."""
        return self.cache / "sources"

    @property
    def environments(self) -> Path:
        """Build environments by what is installed in them."""
        return self.cache / "environments"

    @property
    def bytecode(self) -> Path:
        """What Python compiles of environments that are not ours to change."""
        return self.cache / "bytecode"

    @property
    def toolchains(self) -> Path:
        """CUDA toolchains from the package index and from NVIDIA, by what they are made of."""
        return self.cache / "toolchains"

    @property
    def builds(self) -> Path:
        """One folder for each plan: source, objects, log."""
        return self.cache / "builds"

    @property
    def steps(self) -> Path:
        """Results of compile steps, of all plans."""
        return self.cache / "steps"

    @property
    def costs(self) -> Path:
        """What compiles took on this machine."""
        return self.cache / "costs.json"

    def ensure(self) -> Folders:
        """Create the cache folder; HostError if it can't be written."""
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            writable = os.access(self.cache, os.W_OK | os.X_OK)
        except OSError as error:
            raise self._unwritable(str(error)) from error
        if not writable:
            raise self._unwritable("permission denied")
        return self

    def _unwritable(self, why: str) -> HostError:
        return HostError(
            f"the cache folder {self.cache} can't be written",
            why=why,
            hint="set ATTNFORGE_CACHE to a folder on a disk with space, for example ATTNFORGE_CACHE=/var/tmp/attnforge",
        )
