"""The machine that attnforge runs on, read once and only as far as a verb needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from attnforge import process
from attnforge.errors import HostError
from attnforge.host.active import Inquirer
from attnforge.host.probe import probe
from attnforge.host.programs import Programs
from attnforge.knowledge.torch import find_torch, is_listed
from attnforge.model.host import Active, Host, Installed
from attnforge.paths import Folders
from attnforge.process import Runner
from attnforge.provision.configuration import read_settings
from attnforge.provision.environment import BuildEnvironment, EnvironmentPins, provide_environment
from attnforge.provision.indexes import IndexSettings
from attnforge.provision.overlay import provide_overlay
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
    def active(self) -> Active:
        """The environment that the user is in, and the PyTorch in it. It is asked when this is first read."""
        return self._inquirer.active()

    def look_at(self, place: str) -> Installed:
        """Return what is in an environment that the user names by its folder or interpreter; see ``Inquirer``."""
        return self._inquirer.look_at(place)

    @property
    def _inquirer(self) -> Inquirer:
        programs = Programs(self.runner, self.environ)
        return Inquirer(programs, self.folders.bytecode, own_torch=self.host.torch)

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

    def overlay(self, installed: Installed, requirements: tuple[str, ...]) -> BuildEnvironment:
        """Return the environment with these requirements over the PyTorch of one of the user's, made where needed."""
        return provide_overlay(installed, requirements, self.folders, self.uv)

    def environment(self, python: str, torch: str, cuda: str, requirements: tuple[str, ...]) -> BuildEnvironment:
        """Return the environment with that PyTorch for that CUDA, made first where it is not there.

        ``torch`` "" is none. The configured indexes serve the CUDA that this PyTorch is published for there; builds for
        another come from PyTorch's own index, which uv knows by the backend's name. A PyTorch that the table does not
        have was read from the configured ones.
        """
        pins = EnvironmentPins(python, requirements, torch, cuda, torch_backend(torch, cuda))
        return provide_environment(pins, self.folders, self.uv, self.host.interpreters)


def torch_backend(torch: str, cuda: str) -> str:
    """Return what uv calls the build of a PyTorch for a CUDA on PyTorch's own index, ``cu128``.

    "" where the package index has that build, and for no PyTorch.
    """
    published = not torch or not is_listed(torch) or find_torch(torch).index_cuda == cuda
    return "" if published else "cu" + cuda.replace(".", "")
