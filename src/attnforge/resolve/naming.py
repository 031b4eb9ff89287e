"""The local version label and the file name of a wheel."""

from __future__ import annotations

from packaging.utils import canonicalize_name
from packaging.version import Version

from attnforge.errors import RequestError
from attnforge.knowledge.targets import profiles
from attnforge.model.plan import Selection, SourcePin
from attnforge.model.recipe import Recipe, Release
from attnforge.model.target import Target

NO_LABEL = "none"

# Digits of a commit in a label. The plan in the wheel has them all.
_SHOWN = 8


def local_label(target: Target, profile: str, selection: Selection, recipe: Recipe, release: Release | None) -> str:
    """Return the label that tells what a wheel is for: CUDA, torch, architectures and, of a subset, what is in it.

    ``cu130torch2.11.sm90.diffusion.hd64``: a local version label in the sense of PEP 440, already normalized.
    """
    parts = [f"{target.cuda_tag}torch{target.torch_minor}"]
    parts += [architecture.sm.replace("_", "") for architecture in target.architectures]
    parts += _subset(profile, selection, recipe, release)
    return ".".join(parts)


def _subset(profile: str, selection: Selection, recipe: Recipe, release: Release | None) -> list[str]:
    if recipe.kernels is None or release is None or not selection.is_subset:
        return []
    parts = [profile] if profile != "full" else []
    parts += [f"no{name}" for name in selection.without if name not in profiles()[profile].without]
    if selection.head_dims != release.head_dims:
        parts += [f"hd{head_dim}" for head_dim in selection.head_dims]
    if selection.dtypes != recipe.kernels.dtypes:
        parts += list(selection.dtypes)
    return parts


def with_commit(label: str, source: SourcePin) -> str:
    """Return a label that also names the commit of a git source: one version may stand in many commits."""
    return f"{label}.g{source.commit[:_SHOWN]}".lstrip(".") if source.commit else label


def chosen_label(asked: str, own: str) -> str:
    """Return the label of a wheel: its ``own`` where none is asked for; "" where ``none`` is."""
    if asked == NO_LABEL:
        return ""
    return check_label(asked) if asked else own


def check_label(label: str) -> str:
    """Return a user's label normalized; RequestError if it is not a local version label."""
    try:
        local = Version(f"0+{label}").local
    except ValueError:
        local = None
    if not local:
        raise RequestError(
            f"{label!r} can't be a local version label",
            why="PEP 440 allows letters, digits and single dots between them",
            hint="--label mine.1, or --label none for upstream's own name",
        )
    return local


def wheel_name(package: str, version: str, label: str, target: Target) -> str:
    """Return the file name of the wheel for one Python and one platform, or for any of both."""
    full = Version(version) if not label else Version(f"{Version(version).public}+{label}")
    name = canonicalize_name(package).replace("-", "_")
    tags = f"{target.python_tag}-{target.python_tag}" if target.platform != "any" else "py3-none"
    return f"{name}-{full}-{tags}-{target.platform}.whl"
