"""The shapes of a build: profiles, single features, head dimensions, dtypes and forms, as requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from attnforge import Machine, Planned, Request, plan
from attnforge.errors import RequestError
from attnforge.knowledge.targets import profiles
from attnforge.knowledge.torch import torch_releases
from attnforge.model.recipe import Recipe
from attnforge.recipes.catalogue import find_recipe, recipes

NOTHING = "without any feature"

# 2.2.0 is not on the package index.
_STAND_INS = {"sageattention==2.2.0": Path(__file__).parents[1] / "tests" / "standins" / "sageattention"}

_GPUS = ("H100",)


@dataclass(frozen=True)
class Shape:
    """What of a package is built, and in which form. ``name`` is for people."""

    name: str
    profile: str = "full"
    without: tuple[str, ...] = ()
    head_dims: tuple[int, ...] = ()
    dtypes: tuple[str, ...] = ()
    universal: bool = False

    def request(self, package: str, python: str, torch: str) -> Request:
        """Return the request of ``attnforge.plan``."""
        stand_in = _STAND_INS.get(package)
        return Request(
            package=package,
            source=str(stand_in or ""),
            gpus=_GPUS,
            python=python,
            torch=torch,
            profile=self.profile,
            without=self.without,
            head_dims=self.head_dims,
            dtypes=self.dtypes,
            universal=self.universal,
        )

    def __str__(self) -> str:
        return f"{self.name}, universal" if self.universal else self.name


def packages() -> tuple[str, ...]:
    """Return, as NAME==VERSION, what has a recipe, compiles something and can be had: of the index, or a stand-in."""
    found = [
        f"{recipe.name}=={version}"
        for recipe in recipes().values()
        for release in recipe.releases
        if release.compiled
        for version in (*release.sha256, *release.carriers)
    ]
    return (*found, *_STAND_INS)


def shapes_of(package: str) -> tuple[Shape, ...]:
    """Return every shape of ``NAME==VERSION``: what there is of a recipe's features decides."""
    name, _, version = package.partition("==")
    plain = list(_selections(find_recipe(name).at(version), version))
    # What a universal wheel's host code has besides does not depend on which feature it is that is left out.
    named = [shape for shape in plain if shape.name == NOTHING or shape.name == shape.profile]
    return (*plain, *(replace(shape, universal=True) for shape in named))


def _selections(recipe: Recipe, version: str) -> Iterator[Shape]:
    features = tuple(recipe.features)
    release = recipe.release(version)
    yield Shape("full")
    if not features or release is None or recipe.kernels is None:
        return
    for profile in profiles().values():
        if profile.name != "full":
            yield Shape(profile.name, profile=profile.name)
    for feature in features:
        yield Shape(f"without {feature}", without=(feature,))
    for feature in features:
        yield Shape(f"{feature} alone", without=tuple(other for other in features if other != feature))
    yield Shape(NOTHING, without=features)
    for head_dim in (min(release.head_dims), max(release.head_dims)):
        yield Shape(f"head dimension {head_dim}", head_dims=(head_dim,))
    for dtype in recipe.kernels.dtypes:
        yield Shape(dtype, dtypes=(dtype,))


def planned(machine: Machine, package: str, shape: Shape, python: str, torch: str) -> Planned | None:
    """Return the plan of a shape, None where the package has none of it."""
    try:
        return plan(machine, shape.request(package, python, torch))
    except RequestError:
        return None


def cuda_13_minors() -> tuple[str, ...]:
    """Return the newest patch of each PyTorch minor that exists with CUDA 13, oldest first."""
    newest = {}
    for release in torch_releases():
        if any(cuda.startswith("13.") for cuda in release.cuda):
            newest[release.version.rpartition(".")[0]] = release.version
    return tuple(newest.values())
