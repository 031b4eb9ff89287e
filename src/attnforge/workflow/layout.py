"""Lays the source of a plan out in a folder, and reads what its files say of the build."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from attnforge.errors import BuildError
from attnforge.model.plan import BuildPlan
from attnforge.provision.carrier import lay_out_carrier
from attnforge.provision.indexes import file_sha256
from attnforge.provision.source import copy_tree, fetch_sdist, tree_sha256, unpack
from attnforge.workflow.fromgit import lay_out
from attnforge.workflow.machine import Machine
from attnforge.workflow.outside import other_builder
from attnforge.workflow.planning import Located

Warn = Callable[[str], None]


def lay_out_source(machine: Machine, plan: BuildPlan, located: Located, into: Path, warn: Warn) -> Path:
    """Lay the plan's source out anew in ``into`` and return its folder: what an earlier build left there may be half
    written. BuildError where it is not what was planned.
    """
    pin = plan.source
    shutil.rmtree(into, ignore_errors=True)
    path, address = located.path, located.address
    if pin.kind == "git":
        assert address is not None
        folder, pointers = lay_out(machine, pin, address, into)
        if pointers:
            warn(f"Git LFS is not asked for the contents of {len(pointers)} files: {', '.join(pointers[:3])}")
        return folder
    if pin.kind == "sdist":
        carrier = pin.carrier
        name, version = (carrier.distribution, carrier.version) if carrier else (plan.package, plan.version)
        top = unpack(fetch_sdist(name, version, pin.sha256, machine.folders, machine.settings), into)
        return lay_out_carrier(top, carrier) if carrier else top
    assert path is not None
    laid_out = unpack(path, into) if pin.kind == "archive" else copy_tree(path, into)
    if (file_sha256(path) if pin.kind == "archive" else tree_sha256(laid_out)) != pin.sha256:
        raise BuildError(f"{path} changed after it was planned", hint="run the same command again")
    return laid_out


def text_of(path: Path) -> str:
    """Return the text of a file of the source, "" where there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def builder_of(source: Path) -> str:
    """Return the other program by which an unpacked source compiles (``outside.other_builder``)."""
    return other_builder(*(text_of(source / name) for name in ("setup.py", "pyproject.toml")))
