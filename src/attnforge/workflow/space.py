"""Whether the disk has room for what a build needs, before anything is fetched."""

from __future__ import annotations

from pathlib import Path

from attnforge.errors import HostError
from attnforge.workflow.machine import Machine

# Measured: an environment with PyTorch 2.11.0+cu130 takes 4.5 GB. uv links it from its cache, so it counts once.
_ENVIRONMENT = 4_500_000_000
# Source, objects and the wheel of the smallest builds.
_LEAST = 200_000_000


def check_space(machine: Machine) -> None:
    """Raise HostError where the cache's disk has no room for a build.

    Where no environment was made yet, PyTorch and its CUDA libraries come first, which is known to need 4.5 GB.
    """
    free = next((disk.free_bytes for disk in machine.host.disks if disk.purpose == "build"), None)
    first = not any(folder.is_dir() for folder in (machine.folders.environments, *_caches_of_uv(machine)))
    needed = _ENVIRONMENT if first else _LEAST
    if free is not None and free < needed:
        has, needs = f"{free / 1e9:.1f} GB", f"{needed / 1e9:.1f} GB"
        raise HostError(
            f"no space left for a build: the disk of {machine.folders.builds} has {has} free, and it needs {needs}",
            why="PyTorch's environment alone is 4.5 GB" if first else "source, objects and the wheel have to fit",
            hint="free some space, or set ATTNFORGE_CACHE to a folder on a disk with space",
        )


def _caches_of_uv(machine: Machine) -> list[Path]:
    environ = machine.environ
    named = environ.get("UV_CACHE_DIR")
    shared = Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or Path.home()) / ".cache")
    return [Path(named)] if named else [shared / "uv", machine.folders.cache / "uv"]
