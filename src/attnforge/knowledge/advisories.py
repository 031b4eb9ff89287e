"""Combinations that are known to be bad."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import cache
from typing import Literal

from packaging.specifiers import SpecifierSet

from attnforge.knowledge.data import load
from attnforge.model.base import Value
from attnforge.model.target import Architecture


class Advisory(Value):
    """A known-bad combination. A condition that is empty always holds.

    ``commits`` are those of a source from git; "" among them is a source whose commit is not known. ``file`` is a
    path in the source and ``pattern`` a regular expression that finds what is wrong in its text: no commit has to be
    known for that, but the source has to be available. ``features`` are the recipe's: one of them has to be built.
    """

    id: str
    severity: Literal["error", "warning"]
    message: str
    hint: str
    link: str
    packages: tuple[str, ...] = ()
    versions: str = ""
    commits: tuple[str, ...] = ()
    file: str = ""
    pattern: str = ""
    torch: str = ""
    cuda: str = ""
    gpus: tuple[str, ...] = ()
    gpus_below: str = ""
    gpus_from: str = ""
    features: tuple[str, ...] = ()

    def concerns(
        self,
        package: str,
        version: str,
        torch: str,
        cuda: str,
        capabilities: tuple[Architecture, ...],
        commit: str = "",
        features: Collection[str] = (),
    ) -> bool:
        """Say whether the combination is this one. ``features`` are those that are built."""
        return (
            (not self.packages or package in self.packages)
            and _matches(self.versions, version)
            and (not self.commits or commit in self.commits)
            and _matches(self.torch, torch)
            and _matches(self.cuda, cuda)
            and self._gpu(capabilities)
            and (not self.features or bool({*self.features} & {*features}))
        )

    def found_in(self, read: Callable[[str], str]) -> bool:
        """Say whether a source shows it. ``read`` returns the text of a file by its path, "" where there is none."""
        return bool(self.file) and re.search(self.pattern, read(self.file)) is not None

    def _gpu(self, capabilities: tuple[Architecture, ...]) -> bool:
        if not (self.gpus or self.gpus_below or self.gpus_from):
            return True
        return any(
            capability in [Architecture.parse(gpu) for gpu in self.gpus]
            or (bool(self.gpus_below) and capability < Architecture.parse(self.gpus_below))
            or (bool(self.gpus_from) and not capability < Architecture.parse(self.gpus_from))
            for capability in capabilities
        )


def _matches(specifier: str, version: str) -> bool:
    return not specifier or SpecifierSet(specifier, prereleases=True).contains(version)


class _Table(Value):
    advisory: tuple[Advisory, ...]


@cache
def advisories() -> tuple[Advisory, ...]:
    """Return every advisory, in the order of the data."""
    return load("advisories.toml", _Table).advisory
