"""Whether the disk has room for the first environment, before anything is fetched."""

from __future__ import annotations

from pathlib import Path

from attnforge.errors import HostError
from attnforge.model.plan import BuildPlan
from attnforge.workflow.machine import Machine

# Measured: an environment with PyTorch 2.11.0+cu130 takes 4.5 GB. uv links it from its cache, so it counts once.
_ENVIRONMENT = 4_500_000_000


def check_room(machine: Machine, plan: BuildPlan) -> None:
    """Raise HostError where no environment was made yet and the cache's disk has no room for the first one."""
    free = next((disk.free_bytes for disk in machine.host.disks if disk.purpose == "build"), None)
    there = any(folder.is_dir() for folder in (machine.folders.environments, *_caches_of_uv(machine)))
    if plan.is_compiled and not there and free is not None and free < _ENVIRONMENT:
        raise HostError(
            f"no space left for PyTorch's environment: {free / 1e9:.1f} GB are free, and it needs 4.5 GB",
            why=f"it goes into {machine.folders.environments}, and so do the libraries of CUDA that PyTorch needs",
            hint="free some space, or set ATTNFORGE_CACHE to a folder on a disk with space",
        )


def _caches_of_uv(machine: Machine) -> list[Path]:
    environ = machine.environ
    named = environ.get("UV_CACHE_DIR")
    shared = Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or Path.home()) / ".cache")
    return [Path(named)] if named else [shared / "uv", machine.folders.cache / "uv"]
