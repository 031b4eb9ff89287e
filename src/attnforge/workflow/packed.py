"""Tells what upstream's build compiled from what it found compiled in its source and packed."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

from attnforge.errors import WheelError
from attnforge.provision.indexes import file_sha256
from attnforge.provision.purity import compiled_before
from attnforge.provision.trees import tree_names


def compiled_files(source: Path) -> dict[str, str]:
    """Return the compiled code that lies in an unpacked source before it is built: names by SHA-256."""
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
            why="it lies in the source like that: nobody here knows what it was made of, and neither the plan's"
            " architectures nor its PyTorch reached it",
            hint="a recipe of your own with `outside = true` says that this is wanted (docs/recipes.md)",
        )
