"""A recipe: what attnforge knows of a package, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from attnforge.model.amounts import Cost
from attnforge.model.base import Value, digest_of
from attnforge.model.fields import CanonicalName, ImportName, RequirementText, VersionText
from attnforge.model.kernels import Kernels
from attnforge.model.release import GitSource, Release, SourceKind, UnitArchitectures
from attnforge.model.target import Architecture

SCHEMA = 1
"""The schema of recipes that this attnforge reads."""


class Feature(Value):
    """Something that a user may leave out."""

    summary: str = Field(description="what it is; part of the error of a call that asks for it")
    macro: str = Field(default="", description="the compiler macro that drops it from kernels")
    setting: str = Field(
        default="", description="the environment variable that drops it from upstream's build where it is `TRUE`"
    )
    kinds: tuple[str, ...] = Field(default=(), description="kinds of kernel that exist only for it")
    variants: tuple[str, ...] = Field(
        default=(), description="words of variants: a kernel with one of them exists only for this feature"
    )
    head_dims: tuple[int, ...] = Field(
        default=(), description="the head dimensions that it comes with; it goes with the last of them"
    )
    guard: str = Field(default="", description="C++ condition on `params`, true for a call that asks for it")
    refused: str = Field(
        default="", description="words with which upstream's own host code refuses a call for it, where it does"
    )
    asks: str = Field(default="", description="the argument of the Python call that asks for it")


class Recipe(Value):
    """All that is known of a package: sources, releases, architectures, features, kernels, costs, build settings."""

    schema_: Literal[1] = Field(default=1, alias="schema", description="1")
    name: CanonicalName = Field(description="distribution name, canonical (`flash-attn`)")
    title: str = Field(description="name for people")
    summary: str = Field(description="one line for `attnforge packages`")
    homepage: str = Field(default="", description="where the project is; shown with errors")
    import_name: str = Field(
        default="", description="what Python imports; a folder's version is read from its `__init__.py`"
    )
    modules: tuple[ImportName, ...] = Field(
        default=(),
        description="extension modules by import name; the audit of a build expects them, and the plan's architectures "
        "in them",
    )
    default_version: VersionText = Field(default="", description="the version for a request that names none")
    adapter: str = Field(
        default="",
        description="folder under `recipes/` whose `adapter.py` has the package's own passes; empty for none",
    )
    sources: tuple[SourceKind, ...] = Field(
        default=("sdist", "folder", "archive"),
        description="kinds of source that the package builds from; the first is taken where a request names none",
    )
    instead: str = Field(
        default="", description="the package to build for GPUs that this one has no kernels for, shown with that error"
    )
    git: GitSource | None = Field(default=None, description="the repository, for `--source git` and `NAME@TAG`")
    requirements: tuple[RequirementText, ...] = Field(
        default=(),
        description="what upstream's build imports besides torch, pinned; complete, since upstream's own list is then "
        "not read",
    )
    settings: dict[str, str] = Field(default_factory=dict, description="environment variables of upstream's build")
    releases: tuple[Release, ...] = Field(
        default=(), description="facts by version, see below; the first that covers a version counts"
    )
    unit_architectures: tuple[UnitArchitectures, ...] = Field(
        default=(),
        description="units that can't be compiled for all that the package is; the first that matches counts",
    )
    outside: bool = Field(
        default=False,
        description="whether upstream may compile without the ninja that it is given (CMake, make, `use_ninja=False`): "
        "then there is no progress, memory limit or cache, and coverage says so",
    )
    asks_for_gpus: bool = Field(
        default=False,
        description="whether upstream's build asks for the GPUs of the machine; it then sees those of the target",
    )
    features: dict[str, Feature] = Field(default_factory=dict, description="what a user may leave out, by name")
    kernels: Kernels | None = Field(default=None, description="how upstream's units name their kernels")
    costs: tuple[Cost, ...] = Field(default=(), description="what units take before anything was measured here")

    @property
    def is_generic(self) -> bool:
        """Whether nothing is known of what the package's build makes."""
        return not (self.releases or self.modules or self.kernels)

    def release(self, version: str) -> Release | None:
        """Return the facts of a version, or None where the recipe has none."""
        return next((release for release in self.releases if release.covers(version)), None)

    def at(self, version: str) -> Recipe:
        """Return the recipe with the values of a version's release in place of its own."""
        release = self.release(version)
        if release is None:
            return self
        own = {name: getattr(release, name) for name in ("modules", "sources", "requirements", "settings")}
        return self.model_copy(update={name: value for name, value in own.items() if value is not None})

    def modules_for(self, version: str, architectures: Sequence[Architecture]) -> tuple[str, ...]:
        """Return the modules that the build of a version makes for a target."""
        release = self.release(version)
        only = release.module_architectures if release else {}
        there = {architecture.digits for architecture in architectures}
        return tuple(module for module in self.modules if module not in only or there & set(only[module]))

    def code_of(self, version: str, architectures: Sequence[Architecture]) -> dict[str, tuple[str, ...]]:
        """Return the machine code (``sm_90a``) that each module of such a build has for the target's architectures."""
        release = self.release(version)
        only = release.module_architectures if release else {}
        return {
            module: tuple(one.sm for one in architectures if module not in only or one.digits in only[module])
            for module in self.modules_for(version, architectures)
        }

    def cost(self, kind: str) -> Cost | None:
        """Return what units of a kind cost, or None where nothing is known."""
        return next((cost for cost in self.costs if cost.kind == kind), None)

    def rules_digest(self) -> str:
        """Return the hex SHA-256 of what the recipe does to upstream's units and no other part of a plan says.

        That is its adapter, its features, how it tells kernels apart and which units are compiled for what; "" for a
        recipe that has none of these.
        """
        rules = self.to_json()
        told = {key: rules[key] for key in ("adapter", "features", "kernels", "unit_architectures", "asks_for_gpus")}
        told |= {"outside": True} if self.outside else {}
        return digest_of(told) if any(told.values()) else ""
