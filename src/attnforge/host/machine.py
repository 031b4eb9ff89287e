"""CPUs, memory, disks and C library of this machine, as far as this process may use them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from attnforge.errors import HostError
from attnforge.host.cgroups import cpu_quota, memory_limits
from attnforge.model.host import Disk, Memory
from attnforge.paths import Folders


def usable_cpus(affinity: int, total: int, root: Path) -> tuple[int, str]:
    """Return how many CPUs this process may use at once, and what says so.

    ``affinity`` is how many it may run on, ``total`` how many the machine has.
    """
    quota = cpu_quota(root)
    if quota is not None and quota[0] < affinity:
        return quota
    return affinity, "affinity" if affinity < total else "machine"


def usable_memory(root: Path) -> Memory:
    """Return the memory that this process may use: the machine's, or what its control groups leave of it.

    HostError if /proc/meminfo can't be read.
    """
    total, available = _meminfo(root / "proc/meminfo")
    limit, limited_by = total, "machine"
    for group in memory_limits(root):
        available = min(available, max(0, group.limit - group.used))
        if group.limit < limit:
            limit, limited_by = group.limit, f"cgroup {group.level.path} ({group.setting})"
    return Memory(total_bytes=total, limit_bytes=limit, available_bytes=available, limited_by=limited_by)


def _meminfo(path: Path) -> tuple[int, int]:
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise _no_meminfo(path, str(error)) from error
    kilobytes = {key: int(value) for key, value in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
    if "MemTotal" not in kilobytes:
        raise _no_meminfo(path, "it has no MemTotal")
    total = kilobytes["MemTotal"] * 1024
    # MemAvailable is there from Linux 3.14 on.
    return total, kilobytes.get("MemAvailable", kilobytes.get("MemFree", 0)) * 1024


def _no_meminfo(path: Path, why: str) -> HostError:
    return HostError(
        f"{path} does not tell this machine's memory", why=why, hint="run attnforge on Linux, with /proc mounted"
    )


def find_disks(folders: Folders, environ: Mapping[str, str]) -> tuple[Disk, ...]:
    """Return the file systems of the build, cache and temporary folders."""
    import tempfile

    temporary = Path(environ.get("TMPDIR") or tempfile.gettempdir())
    places = (("build", folders.builds), ("cache", folders.cache), ("temporary", temporary))
    return tuple(_disk(purpose, path) for purpose, path in places)


def _disk(purpose: str, path: Path) -> Disk:
    """Look at a folder, or at the nearest one above it that exists, in which it would be made."""
    there = next(folder for folder in (path, *path.parents) if folder.is_dir() or folder == folder.parent)
    space = os.statvfs(there)
    return Disk(
        purpose=purpose,
        path=str(path),
        free_bytes=space.f_bavail * space.f_frsize,
        device=there.stat().st_dev,
        writable=os.access(there, os.W_OK | os.X_OK),
    )


def find_libc(root: Path) -> str:
    """Return ``glibc 2.36``, ``musl``, or "" where it is neither."""
    try:
        told = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        told = None
    if told:
        return told
    return "musl" if any((root / "lib").glob("ld-musl-*")) else ""
