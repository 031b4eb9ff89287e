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


def without_pip() -> dict[str, str]:
    """Return variables for a build's processes, with which no pip changes the environment that builds share.

    A source may require pip and call it (``sys.executable -m pip``). The machine's own pip, called by its path, changes
    nothing outside of a virtual environment.
    """
    return {"PYTHONPATH": str(FOLDER), "ATTNFORGE_NO_PIP": "1", "PIP_REQUIRE_VIRTUALENV": "1"}


WITHOUT_NINJA = "attnforge: setup.py asks for use_ninja=False"
"""How the line begins that a build prints where ``through_ninja`` changed something."""


def through_ninja() -> dict[str, str]:
    """Return variables for a build's processes, with which PyTorch's BuildExtension compiles by ninja.

    torch-scatter and others say ``use_ninja=False``, and would be compiled one source after the other, by nothing that
    keeps memory within its limit. PyTorch writes the same commands either way.
    """
    return {"PYTHONPATH": str(FOLDER), "ATTNFORGE_NINJA": "1"}
