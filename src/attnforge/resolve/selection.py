"""Which of upstream's kernels are kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from difflib import get_close_matches
from typing import TypeVar

from attnforge.errors import RequestError
from attnforge.knowledge.targets import find_profile
from attnforge.model.kernels import KernelName, Kernels
from attnforge.model.plan import Selection
from attnforge.model.recipe import Recipe
from attnforge.model.release import Release
from attnforge.model.request import Request
from attnforge.resolve.decisions import Notes

T = TypeVar("T", int, str)

_NOT_KNOWN = "no recipe says which kernels this version has"


def choose_selection(request: Request, recipe: Recipe, release: Release | None, notes: Notes) -> tuple[str, Selection]:
    """Return the profile's name and the kernels kept; RequestError for names that the package does not have."""
    profile = find_profile(request.profile or "full")
    if recipe.kernels is None or release is None:
        return profile.name, _unknown_kernels(request, recipe, profile.name, notes)
    _known("feature", request.without, recipe.features, "--without")
    head_dims = _chosen("head dimension", request.head_dims, release.head_dims, "--head-dims")
    left_out = {*profile.without} & {*recipe.features} | {*request.without} | homeless(recipe, head_dims)
    without = tuple(sorted(left_out))
    dtypes = _chosen("dtype", request.dtypes, recipe.kernels.dtypes, "--dtypes")
    selection = _select(recipe, recipe.kernels, release, without, head_dims, dtypes)
    notes.decide(
        "kernels",
        f"{len(selection.kept)} of {len(selection.kept) + len(selection.dropped)} units",
        f"profile {profile.name}; head dimensions {', '.join(map(str, head_dims))}; {', '.join(dtypes)}",
        [(name, f"left out by {_cause(name, request)}") for name in without],
    )
    # A profile that leaves nothing of this package out is no other wheel than the whole.
    return profile.name if selection.is_subset else "full", selection


def homeless(recipe: Recipe, head_dims: Collection[int]) -> set[str]:
    """Return the features that come with head dimensions none of which is kept."""
    features = recipe.features.items()
    return {name for name, one in features if one.head_dims and not set(one.head_dims) & set(head_dims)}


def _cause(feature: str, request: Request) -> str:
    if feature in request.without:
        return "--without"
    profile = find_profile(request.profile or "full")
    return f"profile {profile.name}" if feature in profile.without else "--head-dims"


def _unknown_kernels(request: Request, recipe: Recipe, profile: str, notes: Notes) -> Selection:
    if request.head_dims or request.dtypes or request.without or profile != "full":
        raise RequestError(
            f"no kernels of {recipe.name} can be left out",
            why=_NOT_KNOWN,
            hint="build it whole: leave out --profile, --head-dims, --dtypes and --without",
        )
    notes.decide("kernels", "all", _NOT_KNOWN)
    return Selection()


def _select(
    recipe: Recipe,
    kernels: Kernels,
    release: Release,
    without: Sequence[str],
    head_dims: Sequence[int],
    dtypes: Sequence[str],
) -> Selection:
    gone = [recipe.features[name] for name in without]
    kinds = {kind for feature in gone for kind in feature.kinds}
    words = {word for feature in gone for word in feature.variants}

    def stays(name: str) -> bool:
        kernel = KernelName.parse(name)
        chosen = kernel.head_dim in head_dims and kernel.dtype in dtypes
        return chosen and kernel.kind not in kinds and not words & kernel.words

    every = kernels.names(release.head_dims)
    kept, dropped = partition(every, stays)
    return Selection(
        features=tuple(sorted(set(recipe.features) - set(without))),
        without=tuple(without),
        head_dims=tuple(head_dims),
        dtypes=tuple(dtypes),
        kept=kept,
        dropped=dropped,
    )


def partition(names: Iterable[str], stays: Callable[[str], bool]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names that stay and the others, both in their order."""
    kept: list[str] = []
    dropped: list[str] = []
    for name in names:
        (kept if stays(name) else dropped).append(name)
    return tuple(kept), tuple(dropped)


def settings_of(recipe: Recipe, release: Release | None, selection: Selection) -> dict[str, str]:
    """Return the environment of upstream's build: the recipe's own, and what drops there what was not selected."""
    dropping = [recipe.features[name].setting for name in selection.without]
    kernels = recipe.kernels
    if kernels is not None and release is not None and selection.kept:
        if kernels.head_dim_setting:
            gone = (head_dim for head_dim in release.head_dims if head_dim not in selection.head_dims)
            dropping += [kernels.head_dim_setting.replace("{head_dim}", str(head_dim)) for head_dim in gone]
        dropping += [name for dtype, name in kernels.dtype_settings.items() if dtype not in selection.dtypes]
    return {**recipe.settings, **{name: "TRUE" for name in dropping if name}}


def _chosen(what: str, asked: Sequence[T], offered: Sequence[T], option: str) -> tuple[T, ...]:
    if not asked:
        return tuple(offered)
    _known(what, [str(item) for item in asked], [str(item) for item in offered], option)
    return tuple(item for item in offered if item in set(asked))


def _known(what: str, asked: Iterable[str], offered: Iterable[str], option: str) -> None:
    names = list(offered)
    for item in asked:
        if item not in names:
            raise RequestError(
                f"there is no {what} {item!r} in this package",
                why=f"it has {', '.join(names)}",
                hint=_nearest(option, item, names),
            )


def _nearest(option: str, item: str, names: Sequence[str]) -> str:
    if re.fullmatch(r"-?\d{1,9}", item) and all(name.isdecimal() for name in names):
        # Upstream serves a head dimension with the next larger kernel (HEADDIM_SWITCH of static_switch.h).
        return f"{option} {next((name for name in names if int(name) >= int(item)), names[-1])}"
    near = get_close_matches(item, names, n=1)
    return f"{option} {near[0]}" if near else f"{option} {','.join(names)}"
