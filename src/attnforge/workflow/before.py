"""What earlier builds of a plan left behind: it is not compiled again, so an estimate does not count it."""

from __future__ import annotations

import zipfile
from pathlib import Path

from attnforge.compile.reuse.objects import stored_sources
from attnforge.model.plan import BuildPlan
from attnforge.paths import Folders
from attnforge.resolve.predictions import Made
from attnforge.version import fingerprint

WHEELS = "wheel"
"""The folder, in a plan's own, of finished wheels by the attnforge that made them."""


def finished_wheels(folder: Path) -> Path:
    """Return where the finished wheel of a plan's folder goes.

    Another version of attnforge makes its own, since it may have fixed something.
    """
    return folder / WHEELS / fingerprint()


def made_before(folders: Folders, plan: BuildPlan) -> Made:
    """Return what is stored of a plan. Objects are not checked: one that is damaged is compiled again. The end of
    a wheel is checked: one that was cut off is made again.
    """
    folder = folders.builds / plan.slug
    wheels = finished_wheels(folder).glob("*.whl")
    return Made(stored_sources(folder / "objects"), any(map(zipfile.is_zipfile, wheels)))
