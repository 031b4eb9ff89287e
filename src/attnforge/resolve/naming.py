"""The local version label and the file name of a wheel."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from attnforge.errors import RequestError
from attnforge.knowledge.targets import profiles
from attnforge.model.minors import specifier
from attnforge.model.plan import Selection, SourcePin, TorchPin
from attnforge.model.recipe import Recipe
from attnforge.model.release import Release
from attnforge.model.target import Target
from attnforge.model.universal import Pair
from attnforge.model.versions import as_version, shortened
from attnforge.resolve.selection import homeless
from attnforge.resolve.spans import is_grid, minors_of, pythons_of, span

NO_LABEL = "none"

# Digits of a commit in a label. The plan in the wheel has them all.
_SHOWN = 8


def local_label(
    target: Target,
    profile: str,
    selection: Selection,
    recipe: Recipe,
    release: Release | None,
    pairs: Sequence[Pair] = (),
    compiler: str = "",
    installed: TorchPin | None = None,
) -> str:
    """Return the label that tells what a wheel is for: CUDA, torch, architectures and, of a subset, what is in it.

    ``cu130torch2.11.sm90.diffusion.hd64``: a local version label in the sense of PEP 440, already normalized.
    ``torch2.11.stable`` is that PyTorch and later ones. A universal wheel's names what its pairs are of,
    ``torch2.11to2.13.py3.10to3.13``, and where some are missing their number and a digest of which there are,
    ``7pairs1f0a52c8``. ``compiler`` is the CUDA of nvcc; it is named where it is not the one that PyTorch is built
    with: ``cu126torch2.7.nvcc12.4``. ``installed`` is the PyTorch of a user's environment; of one that is no official
    release the label has the whole version: ``cu128torch2.6.0a0.ecf3bae40a.nv25.1.unofficial``.
    """
    if pairs:
        parts = [f"{target.cuda_tag}torch{span(minors_of(pairs))}", f"py{span(pythons_of(pairs))}"]
        parts += [] if is_grid(pairs) else [f"{len(pairs)}pairs{_which(pairs)}"]
    elif installed and not installed.official:
        parts = [f"{target.cuda_tag}torch{_whole(installed.version)}", "unofficial"]
    else:
        parts = [f"{target.cuda_tag}torch{target.torch_minor}"]
        parts += ["stable"] if uses_stable_abi(release, target) else []
    parts += [f"nvcc{compiler}"] if compiler not in ("", target.cuda) else []
    parts += [architecture.sm.replace("_", "") for architecture in target.architectures]
    parts += _subset(profile, selection, recipe, release)
    return ".".join(parts)


def _whole(version: str) -> str:
    """Return a version as a label can have it: ``2.12.0a0.git1234`` of ``2.12.0a0+git1234``."""
    return str(Version(version)).replace("!", ".").replace("+", ".")


def _which(pairs: Sequence[Pair]) -> str:
    """Return eight hex digits for just these pairs: others may have the same spans and the same number."""
    listed = " ".join(f"{torch}/{python}" for torch, python in sorted(pair.key for pair in pairs))
    return hashlib.sha256(listed.encode()).hexdigest()[:8]


def _subset(profile: str, selection: Selection, recipe: Recipe, release: Release | None) -> list[str]:
    if recipe.kernels is None or release is None or not selection.is_subset:
        return []
    parts = [profile] if profile != "full" else []
    told = {*profiles()[profile].without, *homeless(recipe, selection.head_dims)}
    parts += [f"no{name}" for name in selection.without if name not in told]
    if selection.head_dims != release.head_dims:
        parts += [f"hd{head_dim}" for head_dim in selection.head_dims]
    if selection.dtypes != recipe.kernels.dtypes:
        parts += list(selection.dtypes)
    return parts


def with_commit(label: str, source: SourcePin) -> str:
    """Return a label that also names the commit of a git source: many commits may have one version."""
    return f"{label}.g{source.commit[:_SHOWN]}".lstrip(".") if source.commit else label


def chosen_label(asked: str, own: str) -> str:
    """Return the label of a wheel: its ``own`` where none is asked for; "" where ``none`` is."""
    if asked == NO_LABEL:
        return ""
    return check_label(asked) if asked else own


def check_label(label: str) -> str:
    """Return a user's label normalized; RequestError if it is not a local version label."""
    version = as_version(f"0+{label}")
    local = version.local if version else None
    if not local:
        raise RequestError(
            f"{shortened(label)!r} can't be a local version label",
            why="PEP 440 allows letters, digits and single dots between them",
            hint="--label mine.1, or --label none for upstream's own name",
        )
    return local


def uses_stable_abi(release: Release | None, target: Target) -> bool:
    """Say whether upstream's build for the target's PyTorch uses only PyTorch's stable ABI."""
    stable = release.stable_abi if release else ""
    return bool(stable) and SpecifierSet(stable).contains(target.torch, prereleases=True)


def torch_requirement(
    target: Target, release: Release | None, pairs: Sequence[Pair] = (), installed: TorchPin | None = None
) -> str:
    """Return the specifier of the PyTorch versions that a compiled wheel loads with.

    Extension modules that use PyTorch's C++ interface load with the minor that they were built for and no other
    (FA#723). Those of the stable ABI load with later ones too; with earlier ones only where they use nothing newer,
    which the headers of the target's PyTorch do not say. A universal wheel loads with the minors of its pairs. An
    ``installed`` PyTorch that is no official release is the one that they load with.
    """
    if installed and not installed.official:
        return f"=={installed.version}"
    if pairs:
        return specifier(minors_of(pairs))
    return f">={target.torch_minor}" if uses_stable_abi(release, target) else f"=={target.torch_minor}.*"


def wheel_name(
    package: str,
    version: str,
    label: str,
    target: Target,
    release: Release | None = None,
    *,
    universal: bool = False,
) -> str:
    """Return the file name of the wheel: for one Python, each from one on, or any; for one platform or any.

    That of a universal wheel says any Python: its label and its loader say which there are.
    """
    full = Version(version) if not label else Version(f"{Version(version).public}+{label}")
    name = canonicalize_name(package).replace("-", "_")
    limited = release.limited_api if release else ""
    tags = f"{limited}-abi3" if limited else f"{target.python_tag}-{target.abi_tag}"
    tags = "py3-none" if universal or target.platform == "any" else tags
    return f"{name}-{full}-{tags}-{target.platform}.whl"
