"""Lays out the source of a package that lies in the archive of another one."""

from __future__ import annotations

import os
from pathlib import Path

from attnforge.errors import BuildError
from attnforge.model.recipe import Carrier


def lay_out_carrier(top: Path, carrier: Carrier) -> Path:
    """Add what upstream's build looks for and the archive lacks, and return the folder that is built.

    Nothing that is there is changed. BuildError where the archive is not laid out as the recipe says.
    """
    for path, target in carrier.links.items():
        place, found = top / path, top / target
        if place.exists() or not found.is_dir():
            raise _differs(carrier, path if place.exists() else target, place.exists())
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(found, place.parent))
    for path, text in carrier.files.items():
        place = top / path
        if place.exists():
            raise _differs(carrier, path, there=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    folder = top / carrier.subdirectory
    if not (folder / "setup.py").is_file():
        raise _differs(carrier, f"{carrier.subdirectory}/setup.py", there=False)
    return folder


def _differs(carrier: Carrier, path: str, there: bool) -> BuildError:
    return BuildError(
        f"the sdist of {carrier.distribution} {carrier.version} has {path}" + (" already" if there else " not"),
        why="its recipe says otherwise",
        hint="take another source: --source git, or --source FOLDER",
    )
