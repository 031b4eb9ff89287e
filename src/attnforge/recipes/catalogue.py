"""Finds recipes, and makes one of what little is known where there is none."""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from functools import cache
from importlib import import_module, resources

from packaging.utils import canonicalize_name

from attnforge.model.recipe import Recipe
from attnforge.recipes.adapter import Adapter, PlainAdapter


@cache
def recipes() -> dict[str, Recipe]:
    """Return every recipe by its distribution name, in alphabetical order."""
    folder = resources.files("attnforge.recipes")
    files = (entry.joinpath("recipe.toml") for entry in folder.iterdir() if entry.is_dir())
    found = [Recipe.model_validate(tomllib.loads(file.read_text(encoding="utf-8"))) for file in files if file.is_file()]
    return {recipe.name: recipe for recipe in sorted(found, key=lambda recipe: recipe.name)}


def find_recipe(name: str) -> Recipe:
    """Return the recipe of a distribution, or a generic one: compiled whole, for the capabilities of the GPUs."""
    canonical = canonicalize_name(name)
    return recipes().get(canonical) or _generic(canonical)


UNKNOWN_REQUIREMENTS = ("setuptools==80.9.0", "wheel==0.45.1", "packaging==25.0", "ninja==1.13.0", "numpy")
"""What a package without a recipe is built with, unless its source asks for other versions.

They are those that FlashAttention 2's recipe was proven with. numpy only quiets a warning of torch's.
"""


def _generic(name: str) -> Recipe:
    return Recipe(
        name=name,
        title=name,
        summary="no recipe: built whole, as its own setup says",
        requirements=UNKNOWN_REQUIREMENTS,
        # Many a setup asks for a GPU before it compiles anything.
        asks_for_gpus=True,
        settings={
            # Setups that look for a GPU of the build machine before they compile CUDA code look here first:
            # https://github.com/rusty1s/pytorch_scatter/blob/master/setup.py, and many after its example.
            "FORCE_CUDA": "1",
            # The family of causal-conv1d and mamba-ssm guesses the URL of a wheel otherwise (FA#691).
            name.upper().replace("-", "_") + "_FORCE_BUILD": "TRUE",
        },
    )


def suggestions(name: str) -> list[str]:
    """Return the recipes whose names are near."""
    return get_close_matches(canonicalize_name(name), recipes(), n=3, cutoff=0.5)


@cache
def adapters() -> tuple[str, ...]:
    """Return the names of the adapters that attnforge has, in alphabetical order."""
    folder = resources.files("attnforge.recipes")
    return tuple(sorted(entry.name for entry in folder.iterdir() if entry.joinpath("adapter.py").is_file()))


def find_adapter(recipe: Recipe) -> Adapter:
    """Return what a recipe needs in code: the ``ADAPTER`` of its module, or the adapter that does nothing."""
    if not recipe.adapter:
        return PlainAdapter()
    adapter: Adapter = import_module(f"attnforge.recipes.{recipe.adapter}.adapter").ADAPTER
    return adapter
