"""Reads a recipe that a user wrote, and says of a wrong one which key is wrong, why, and which was meant."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from pydantic import ValidationError

from attnforge.errors import RequestError
from attnforge.model.recipe import SCHEMA, Recipe
from attnforge.recipes.catalogue import adapters

RECIPE_SUFFIX = ".toml"

# How many mistakes are reported at once: enough to fix a file in one go, few enough to read.
_TOLD = 5
# How many letters of a key are taken for the beginning of it.
_BEGINNING = 4

# What TOML calls the types that pydantic names.
_TYPES = {r"a valid tuple": "an array", r"a valid dictionary(?: or instance of \w+)?": "a table"}

_ALL_KEYS = "attnforge packages --schema lists every key"


def read_recipe(path: Path) -> Recipe:
    """Return the recipe in a file; RequestError that names the file, each wrong key and what is wrong with it.

    A user's own recipe brings no code: it can only name an adapter of attnforge's.
    """
    table = _table(path)
    schema = table.get("schema", SCHEMA)
    if isinstance(schema, int) and schema > SCHEMA:
        raise RequestError(
            f"{path}: schema: {schema} is of a later attnforge",
            why=f"this one reads schema {SCHEMA}",
            hint="install a newer attnforge: pip install -U attnforge",
        )
    try:
        recipe = Recipe.model_validate(table)
    except ValidationError as error:
        raise _refused(path, [_mistake(one) for one in error.errors()]) from None
    wrong = list(mistakes(recipe))
    if wrong:
        raise _refused(path, wrong)
    return recipe


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RequestError(
            f"{path} does not exist", hint="a word that ends in .toml is the path of a recipe of your own"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} can't be read", why=str(error), hint="name a TOML file") from error
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path} is no TOML", why=str(error), hint="fix that line") from None


Mistake = tuple[str, str, str]
"""A key, what is wrong with it, and a hint or ""."""


def _refused(path: Path, wrong: Sequence[Mistake]) -> RequestError:
    key, what, hint = wrong[0]
    others = [f"{key}: {what}" for key, what, _ in wrong[1:_TOLD]]
    if len(wrong) > _TOLD:
        others.append(f"{len(wrong) - _TOLD} more")
    return RequestError(f"{path}: {key}: {what}", why="; ".join(others), hint=hint or _ALL_KEYS)


# --- what the model finds


def _mistake(error: Any) -> Mistake:
    location: tuple[int | str, ...] = error["loc"]
    key = _written([part for part in location if part != "[key]"])
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        known = _keys_at(location[:-1])
        near = _nearest(str(location[-1]), known)
        return key, "there is no such key", f"did you mean {near!r}?" if near else f"known here: {', '.join(known)}"
    if kind == "missing":
        return key, "is missing", ""
    message = str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "has to be")
    for python, toml in _TYPES.items():
        message = re.sub(python, toml, message)
    return key, message if kind == "value_error" else f"{message}, and is {given!r}", ""


def _nearest(word: str, known: Sequence[str]) -> str:
    """Return the key that was meant: one that begins so, else one that is written nearly so, else ""."""
    beginning = [key for key in known if len(word) >= _BEGINNING and key.startswith(word[:_BEGINNING])]
    return (beginning or get_close_matches(word, known, n=1, cutoff=0.7) or [""])[0]


def _written(location: Sequence[int | str]) -> str:
    """Write a place in a file as people do: ``releases[0].sha256."1.0"``."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch(r"[\w-]+", part) else f'"{part}"')
    return text


@cache
def _schema() -> dict[str, Any]:
    return Recipe.model_json_schema(by_alias=True)


def _keys_at(location: Sequence[int | str]) -> list[str]:
    """Return the keys that the table at a place of a recipe can have."""
    node = _followed(_schema())
    for part in location:
        inner = node.get("items") if isinstance(part, int) else node.get("properties", {}).get(part)
        node = _followed(inner or node.get("additionalProperties") or {})
    return list(node.get("properties", {}))


def _followed(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference, also one that may be null instead."""
    for choice in (node, *node.get("anyOf", ())):
        if "$ref" in choice:
            definition: Mapping[str, Any] = _schema()["$defs"][str(choice["$ref"]).rpartition("/")[2]]
            return definition
    return node


# --- rules for a whole recipe


def mistakes(recipe: Recipe) -> Iterator[Mistake]:
    """Yield what is wrong with a recipe though each of its fields is right."""
    yield from _wrong_sources(recipe)
    yield from _wrong_versions(recipe)
    yield from _wrong_requirements(recipe)
    yield from _wrong_settings(recipe)
    yield from _wrong_code(recipe)


def _wrong_sources(recipe: Recipe) -> Iterator[Mistake]:
    for key, sources in _in_each(recipe, "sources"):
        if "git" in sources and recipe.git is None:
            yield key, "git is named, and no repository", "add a table [git] with its url"
        if "carrier" in sources and not any(release.carriers for release in recipe.releases):
            yield key, "carrier is named, and no archive", "add a table [releases.carriers.VERSION]"
        if not sources:
            yield key, "is empty", "leave it out for sdist, folder and archive"


def _wrong_versions(recipe: Recipe) -> Iterator[Mistake]:
    if recipe.releases and recipe.default_version and recipe.release(recipe.default_version) is None:
        yield "default_version", f"no release covers {recipe.default_version}", "widen releases.versions"
    for index, release in enumerate(recipe.releases):
        pins = (("sha256", release.sha256), ("commits", release.commits), ("carriers", release.carriers))
        for key, pinned in pins:
            for version in pinned:
                if recipe.release(version) is not release:
                    told = f"{version} is not one of this release's versions ({release.versions})"
                    yield f'releases[{index}].{key}."{version}"', told, "put it where its facts are"


def _wrong_requirements(recipe: Recipe) -> Iterator[Mistake]:
    for key, requirements in _in_each(recipe, "requirements"):
        for index, text in enumerate(requirements):
            operators = {part.operator for part in Requirement(text).specifier}
            if operators not in ({"=="}, {"==="}) or "*" in text:
                told = f"{text!r} is not pinned, so that the same plan would not be the same build"
                yield f"{key}[{index}]", told, f"{Requirement(text).name}==VERSION"


def _wrong_settings(recipe: Recipe) -> Iterator[Mistake]:
    for key, settings in _in_each(recipe, "settings"):
        for name, value in settings.items():
            if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or "\0" in value:
                yield f"{key}.{_written([name])}", "can't be an environment variable", "only letters, digits and _"


def _in_each(recipe: Recipe, key: str) -> Iterator[tuple[str, Any]]:
    """Yield what the recipe and its releases have under a key, with the place of each."""
    yield key, getattr(recipe, key)
    for index, release in enumerate(recipe.releases):
        if (own := getattr(release, key)) is not None:
            yield f"releases[{index}].{key}", own


def _wrong_code(recipe: Recipe) -> Iterator[Mistake]:
    if recipe.adapter and recipe.adapter not in adapters():
        told = f"attnforge has no adapter {recipe.adapter!r}, and a recipe of your own is data: it brings no code"
        yield "adapter", told, f"one of {', '.join(adapters())}, or none"
    if not recipe.adapter:
        for key in ("features", "kernels"):
            if getattr(recipe, key):
                told = "what can be left out needs an adapter, which makes calls for it raise"
                yield key, told, f"take it out, or name one of attnforge's: {', '.join(adapters())}"
