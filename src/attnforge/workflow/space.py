"""What a build writes, and whether there is space for it. This is checked before anything is compiled."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from attnforge.errors import HostError, RequestError
from attnforge.files import existing, free_bytes
from attnforge.model.plan import BuildPlan
from attnforge.workflow.machine import Machine

# Of a kernel for one architecture: the least that was seen, of flash-attn 2.8.3 (forward, head dimension 64, without
# features, nvcc 13.0, sm_90: 644 kB for four in one object, compressed). A build that has space must not be refused.
_KERNEL_BYTES = 160_000

# The same code is in the object, in the results for other plans, in upstream's module and wheel, and in our wheel.
_COPIES_IN_CACHE = 5

# What one nvcc has in its temporary folder at once (docs/performance.md: about 70 MB a unit; 20 of it preprocessed).
_TEMPORARY_BYTES = 70_000_000


# Measured: an environment with PyTorch 2.11.0+cu130 takes 4.5 GB. uv links it from its cache, so it counts once.
_ENVIRONMENT = 4_500_000_000


@dataclass(frozen=True, slots=True)
class Need:
    """What is written to a folder at least, in bytes; ``move`` is the setting that puts it elsewhere."""

    folder: Path
    size: int
    move: str


def needs_of(plan: BuildPlan, slots: int, cache: Path, temporary: Path, out: Path, there: int = 0) -> tuple[Need, ...]:
    """Return what a build needs in its folders. ``there`` is what its objects take already, in bytes.

    Of a package whose kernels are not known, nothing is known.
    """
    kernels = len(plan.selection.kept)
    code = kernels * len(plan.target.architectures) * _KERNEL_BYTES
    return (
        Need(cache, max(_COPIES_IN_CACHE * code - there, 0), "ATTNFORGE_CACHE=FOLDER"),
        Need(temporary, min(slots, kernels) * _TEMPORARY_BYTES, "TMPDIR=FOLDER"),
        Need(out, code, "--out FOLDER"),
    )


def free_in(folder: Path) -> tuple[int, int]:
    """Return the device that a folder is on, or will be, and the bytes that are free there."""
    return existing(folder).stat().st_dev, free_bytes(folder)


def check_space(needs: Iterable[Need], look: Callable[[Path], tuple[int, int]] = free_in) -> None:
    """Raise HostError where a device has less free than its folders need together."""
    free: dict[int, int] = {}
    on: dict[int, list[Need]] = {}
    for need in needs:
        device, free[device] = look(need.folder)
        on.setdefault(device, []).append(need)
    for device, held in on.items():
        wanted = sum(need.size for need in held)
        if wanted > free[device]:
            parts = ", ".join(f"{_mb(need.size)} in {need.folder}" for need in held if need.size)
            raise HostError(
                f"no space left for the build: it needs {_mb(wanted)} at least, and {_mb(free[device])} are free",
                why=parts,
                hint=f"free some space, or use another disk: {', '.join(need.move for need in held if need.size)}",
            )


def check_environment_space(machine: Machine, plan: BuildPlan) -> None:
    """Raise HostError where no environment was made yet and the cache's disk has no space for the first one."""
    free = next((disk.free_bytes for disk in machine.host.disks if disk.purpose == "build"), None)
    there = any(folder.is_dir() for folder in (machine.folders.environments, *_caches_of_uv(machine)))
    if plan.is_compiled and not there and free is not None and free < _ENVIRONMENT:
        raise HostError(
            f"no space left for PyTorch's environment: {free / 1e9:.1f} GB are free, and it needs 4.5 GB",
            why=f"it goes into {machine.folders.environments}, and so do the libraries of CUDA that PyTorch needs",
            hint="free some space, or set ATTNFORGE_CACHE to a folder on a disk with space",
        )


def check_output(out: Path) -> None:
    """Raise RequestError or HostError where wheels can't be put into a folder, which need not be there."""
    place = existing(out)
    if not place.is_dir():
        raise RequestError(f"{place} is a file: no wheel can be put there", hint="--out FOLDER")
    if not os.access(place, os.W_OK | os.X_OK):
        raise HostError(f"{place} can't be written: no wheel can be put there", hint="--out FOLDER, another one")


def _caches_of_uv(machine: Machine) -> list[Path]:
    environ = machine.environ
    named = environ.get("UV_CACHE_DIR")
    shared = Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or Path.home()) / ".cache")
    return [Path(named)] if named else [shared / "uv", machine.folders.cache / "uv"]


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size < 10**10 else f"{size / 1e9:,.1f} GB"
