"""Refuses a wheel of upstream's that contains compiled code from before its build, or none at all."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

from attnforge.errors import WheelError
from attnforge.files import file_sha256
from attnforge.provision.purity import compiled_before
from attnforge.provision.trees import tree_names


def compiled_files(source: Path) -> dict[str, str]:
    """Return the compiled code in an unpacked source before its build: names by SHA-256."""
    found = (source / name for name in compiled_before(tree_names(source)))
    return {file_sha256(path): path.name for path in found if path.is_file()}


def refuse_packed(wheel: Path, before: Mapping[str, str]) -> None:
    """Raise WheelError where upstream's wheel holds a file that was compiled ``before`` its build."""
    with zipfile.ZipFile(wheel) as archive:
        names = compiled_before(archive.namelist()) if before else ()
        packed = [name for name in names if hashlib.sha256(archive.read(name)).hexdigest() in before]
    if packed:
        more = f" and {len(packed) - 1} more" if len(packed) > 1 else ""
        raise WheelError(
            f"upstream's wheel holds code that was compiled before this build: {packed[0]}{more}",
            why="the source contains it: it is not known what it was made of, and it does not follow the plan's"
            " architectures or PyTorch",
            hint="a recipe of your own with `outside = true` says that this is wanted (docs/recipes.md)",
        )


def refuse_pure(wheel: Path, package: str) -> None:
    """Raise WheelError where a build that was planned to compile made a wheel for any Python, without compiled code."""
    if not wheel.name.endswith("-none-any.whl"):
        return
    with zipfile.ZipFile(wheel) as archive:
        if compiled_before(archive.namelist()):
            return
    raise WheelError(
        f"upstream's build compiled nothing: {wheel.name} is pure Python",
        why=f"{package} compiles its kernels where they run, or its setup left them out for something that it did not"
        " find; its files do not say beforehand which, so the plan was for compiled modules",
        hint="if it is meant to be pure Python, a recipe of your own with `compiled = false` builds it"
        " (docs/recipes.md), or pip installs it; else the log says what its setup did not find",
    )
