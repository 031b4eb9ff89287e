"""The build environments of a wheel's pairs of PyTorch and Python."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from attnforge.errors import AttnforgeError
from attnforge.model.host import Installed
from attnforge.model.universal import Pair
from attnforge.provision.environment import BuildEnvironment
from attnforge.workflow.machine import Machine


@dataclass(frozen=True, slots=True)
class PairEnvironments:
    """The environments of a wheel's pairs. A module is built, audited and loaded in that of its pair.

    ``installed`` is an environment of the user's whose PyTorch serves its pair, None where there is none.
    """

    machine: Machine
    cuda: str
    requirements: tuple[str, ...]
    installed: Installed | None = None

    def of(self, pair: Pair) -> BuildEnvironment:
        """Return a pair's environment, made first where it is not there. HostError where it can't be made."""
        try:
            return self.having(pair.python, pair.torch)
        except AttnforgeError as error:
            raise of_pair(pair, error) from error

    def having(self, python: str, torch: str) -> BuildEnvironment:
        """Return the environment with a Python (``3.12``) and a PyTorch, made first where it is not there.

        ``torch`` "" is none. HostError where it can't be made.
        """
        installed = self.installed
        if installed and torch and (python, public(torch)) == (installed.minor, public(installed.torch)):
            return self.machine.overlay(installed, self.requirements)
        return self.machine.environment(python, torch, self.cuda, self.requirements)

    def sites(self, pairs: Iterable[Pair]) -> list[tuple[Pair, Path]]:
        """Return the site-packages folder of each pair's environment."""
        return [(pair, self.of(pair).site_packages) for pair in pairs]

    def libraries(self, pairs: Iterable[Pair]) -> tuple[Path, ...]:
        """Return the shared libraries that the pairs' PyTorch load from elsewhere."""
        return tuple(dict.fromkeys(path for pair in pairs for path in self.of(pair).libraries))


def public(version: str) -> str:
    """Return a version without its local part, in its normal form."""
    return Version(version).public


def of_pair(pair: Pair, error: AttnforgeError) -> AttnforgeError:
    """Return an error that says which pair it is about."""
    if error.what.startswith(f"{pair}: "):
        return error
    return type(error)(f"{pair}: {error.what}", why=error.why, hint=error.hint, link=error.link)
