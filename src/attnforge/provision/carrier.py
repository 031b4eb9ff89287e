"""Lays out the source of a package that is in the archive of another one."""

from __future__ import annotations

from pathlib import Path

from attnforge.errors import BuildError
from attnforge.model.release import Carrier


def lay_out_carrier(top: Path, carrier: Carrier) -> Path:
    """Add the files that upstream's build reads and the archive lacks, and return the folder that is built.

    No file of the archive is changed. BuildError where the archive is not laid out as the recipe says.
    """
    for path, text in carrier.files.items():
        if (top / path).exists():
            raise _differs(carrier, f"has {path} already")
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(text, encoding="utf-8")
    folder = top / carrier.subdirectory
    if not (folder / "setup.py").is_file():
        raise _differs(carrier, f"has no {carrier.subdirectory}/setup.py")
    return folder


def _differs(carrier: Carrier, what: str) -> BuildError:
    return BuildError(
        f"the sdist of {carrier.distribution} {carrier.version} {what}",
        why="its recipe says otherwise",
        hint="take another source: --source git, or --source FOLDER",
    )
