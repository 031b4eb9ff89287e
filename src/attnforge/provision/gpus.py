"""The environment in which upstream's build sees the target's GPUs instead of this machine's."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from attnforge.model.target import Architecture

FOLDER = Path(__file__).with_name("virtual")


def virtual_gpus(capabilities: Iterable[Architecture]) -> dict[str, str]:
    """Return variables for a build's processes: Python then imports ``virtual/sitecustomize.py`` before anything else.

    A setup.py that takes its architectures from the GPUs of the build machine (SA#157: "No GPUs found") so builds for
    the target, on a machine that has other GPUs or none. There is one GPU for each compute capability, named after it:
    what is built must not depend on which GPU of that capability was asked for.
    """
    told = [{"name": one.sm, "major": one.major, "minor": one.minor} for one in capabilities]
    return {"PYTHONPATH": str(FOLDER), "ATTNFORGE_GPUS": json.dumps(told)}
