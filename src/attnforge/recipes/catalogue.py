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
    """Return the recipe of a distribution, or a generic one: compiled whole, for the capabilities of the GPUs.

    Versions in ``requirements`` are those that FlashAttention 2's recipe was proven with.
    """
    canonical = canonicalize_name(name)
    return recipes().get(canonical) or Recipe(
        name=canonical,
        title=canonical,
        summary="no recipe: built whole, as its own setup says",
        requirements=("setuptools==80.9.0", "wheel==0.45.1", "packaging==25.0", "ninja==1.13.0", "numpy"),
    )


def suggestions(name: str) -> list[str]:
    """Return the recipes whose names are near."""
    return get_close_matches(canonicalize_name(name), recipes(), n=3, cutoff=0.5)


def find_adapter(recipe: Recipe) -> Adapter:
    """Return what a recipe needs in code: the ``ADAPTER`` of its module, or the adapter that does nothing."""
    if not recipe.adapter:
        return PlainAdapter()
    adapter: Adapter = import_module(f"attnforge.recipes.{recipe.adapter}.adapter").ADAPTER
    return adapter
