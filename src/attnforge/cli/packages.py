"""``attnforge packages``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from attnforge.cli.terminal import Terminal
from attnforge.knowledge.targets import profiles, targets
from attnforge.model.recipe import Recipe
from attnforge.model.release import Release
from attnforge.recipes.catalogue import recipes


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument("--targets", action="store_true", help="list the named targets and the profiles")
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of a recipe")
    parser.add_argument("--json", action="store_true", help="print the recipes as JSON")


def run(arguments: argparse.Namespace, environ: Mapping[str, str], out: Terminal) -> int:
    """Print the packages."""
    if arguments.schema:
        out.json(recipe_schema())
    elif arguments.json:
        out.json({"schema": 1, "packages": [recipe.to_json() for recipe in recipes().values()]})
    elif arguments.targets:
        out.lines(_target_lines())
    else:
        for recipe in recipes().values():
            out.lines(_lines(recipe))
        out.text(
            "\nOther packages that use PyTorch's BuildExtension can be built too, whole or with your own recipe:\n"
            "  attnforge build NAME==VERSION\n  attnforge build ./FOLDER\n  attnforge build ./RECIPE.toml\n"
        )
    return 0


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe file, with the dialect and title that editors expect."""
    schema = Recipe.model_json_schema(by_alias=True)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema, "title": "Recipe of attnforge"}


def _lines(recipe: Recipe) -> Iterator[str]:
    yield f"{recipe.name}  {recipe.title}"
    yield f"  {recipe.summary}"
    yield f"  from       {', '.join(recipe.sources)}; {recipe.homepage}"
    for release in recipe.releases:
        yield f"  {release.versions:<15}{'; '.join(_facts(release))}"
    if recipe.features:
        yield f"  can leave out {', '.join(recipe.features)}"


def _facts(release: Release) -> Iterator[str]:
    if not release.compiled:
        yield "pure Python, for every Python, PyTorch and CUDA"
    if release.architectures:
        yield ", ".join(f"sm_{architecture}" for architecture in release.architectures)
    if release.head_dims:
        yield f"head dimensions {', '.join(map(str, release.head_dims))}"
    for name, specifier in (("CUDA", release.cuda), ("PyTorch", release.torch)):
        if specifier:
            yield f"{name} {specifier}"
    if release.sha256:
        yield f"pinned by hash: {', '.join(release.sha256)}"
    for version, one in release.carriers.items():
        yield f"{version} pinned by hash, in the sdist of {one.distribution} {one.version}"
    for version, commit in release.commits.items():
        yield f"{version} is commit {commit[:8]}"


def _target_lines() -> Iterator[str]:
    for target in targets().values():
        yield f"--target {target.name}"
        yield f"  {target.summary}"
    for profile in profiles().values():
        yield f"--profile {profile.name}"
        yield f"  {profile.summary}"
