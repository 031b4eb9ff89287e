"""The machine that attnforge runs on, looked at once and only as far as a verb needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from attnforge import process
from attnforge.errors import HostError
from attnforge.host.probe import probe
from attnforge.model.host import Host
from attnforge.paths import Folders
from attnforge.process import Runner
from attnforge.provision.configuration import read_settings
from attnforge.provision.indexes import IndexSettings
from attnforge.provision.uv import Uv, cache_setting


@dataclass(frozen=True)
class Machine:
    """The environment that attnforge was started with, and what follows from it."""

    environ: Mapping[str, str]
    runner: Runner = field(default=process.run)

    @cached_property
    def folders(self) -> Folders:
        """Where things are kept."""
        return Folders.of(self.environ)

    @cached_property
    def host(self) -> Host:
        """Processors, memory, compilers, GPUs."""
        return probe(self.environ, self.folders, self.runner)

    @cached_property
    def settings(self) -> IndexSettings:
        """The package indexes that pip and uv are configured with."""
        return read_settings(self.environ)

    @cached_property
    def uv(self) -> Uv:
        """The uv program; attnforge depends on the package, so it is there."""
        from uv import find_uv_bin

        try:
            program = find_uv_bin()
        except FileNotFoundError as error:
            raise HostError("uv is not installed beside attnforge", why=str(error), hint="pip install uv") from error
        environ = {**self.environ, **cache_setting(self.environ, self.folders.cache / "uv")}
        return Uv(program, self.settings, environ, self.runner)
