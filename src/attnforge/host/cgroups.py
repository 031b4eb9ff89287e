"""Limits of the control groups that this process is in, of version 1, version 2 or both."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Level:
    """A group that this process is in: its folder, its path in the hierarchy, and the version of cgroups (1 or 2)."""

    folder: Path
    path: str
    version: int


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """A limit of a group, and what it uses of it now without file pages that can be dropped; bytes."""

    level: Level
    setting: str
    limit: int
    used: int


@dataclass(frozen=True, slots=True)
class _Mount:
    point: Path
    root: str
    version: int
    controllers: frozenset[str]


def levels(root: Path, controller: str) -> tuple[Level, ...]:
    """Return the groups of this process for a controller (memory, cpu), the innermost first.

    Read from /proc/self/cgroup and /proc/self/mountinfo under ``root``. A container may see a path that its own mount
    does not have; then the groups that it does see are returned.
    """
    groups = _groups(_read(root / "proc/self/cgroup"))
    found = []
    for mount in _mounts(_read(root / "proc/self/mountinfo"), root):
        name = controller if mount.version == 1 else ""
        if name in groups and (mount.version == 2 or controller in mount.controllers):
            found += list(_ancestors(mount, groups[name]))
    return tuple(found)


def _groups(text: str) -> dict[str, str]:
    """Return the path of each controller of version 1, and that of version 2 under ""."""
    found = {}
    for line in text.splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3:
            for controller in fields[1].split(","):
                found[controller] = fields[2]
    return found


def _mounts(text: str, root: Path) -> Iterator[_Mount]:
    """Yield the cgroup mounts of a mountinfo: see proc_pid_mountinfo(5) for its fields."""
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        mount, kind = before.split(), after.split()
        if separator and len(mount) >= 5 and len(kind) >= 3 and kind[0] in ("cgroup", "cgroup2"):
            version = 2 if kind[0] == "cgroup2" else 1
            point = root / _unescaped(mount[4]).lstrip("/")
            yield _Mount(point, _unescaped(mount[3]), version, frozenset(kind[2].split(",")))


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _ancestors(mount: _Mount, group: str) -> Iterator[Level]:
    """Yield the group's folder and those above it up to the mount, as far as they exist."""
    path = PurePosixPath("/") / group
    # Without its own namespace a container's mount starts in the middle of the hierarchy.
    inside = path.relative_to(mount.root) if path.is_relative_to(mount.root) else path.relative_to("/")
    if ".." in inside.parts:
        inside = PurePosixPath()
    for part in (inside, *inside.parents):
        folder = mount.point / part
        if folder.is_dir():
            yield Level(folder, f"/{part}" if part.parts else "/", mount.version)


def cpu_quota(root: Path) -> tuple[int, str] | None:
    """Return the CPUs that the tightest quota is worth, rounded up, and the setting that says so; None for no quota."""
    quotas = [quota for level in levels(root, "cpu") if (quota := _quota(level)) is not None]
    return min(quotas, default=None)


def _quota(level: Level) -> tuple[int, str] | None:
    if level.version == 2:
        setting, fields = "cpu.max", _read(level.folder / "cpu.max").split()
    else:
        setting = "cpu.cfs_quota_us"
        fields = [_read(level.folder / name).strip() for name in (setting, "cpu.cfs_period_us")]
    if len(fields) != 2 or not all(field.isdecimal() and int(field) > 0 for field in fields):
        return None
    return max(1, ceil(int(fields[0]) / int(fields[1]))), f"cgroup {level.path} ({setting})"


def memory_limits(root: Path) -> tuple[MemoryLimit, ...]:
    """Return every memory limit of this process, also those of the groups above its own."""
    return tuple(limit for level in levels(root, "memory") for limit in _memory(level))


def _memory(level: Level) -> Iterator[MemoryLimit]:
    # Above memory.high the kernel does not kill but throttles until nothing moves, which is no better for a build.
    settings = ("memory.max", "memory.high") if level.version == 2 else ("memory.limit_in_bytes",)
    for setting in settings:
        text = _read(level.folder / setting).strip()
        if text.isdecimal():
            yield MemoryLimit(level, setting, int(text), _used(level))


def _used(level: Level) -> int:
    current, prefix = ("memory.current", "") if level.version == 2 else ("memory.usage_in_bytes", "total_")
    pattern = rf"^{prefix}(inactive|active)_file (\d+)$"
    pages = dict(re.findall(pattern, _read(level.folder / "memory.stat"), re.MULTILINE))
    text = _read(level.folder / current).strip()
    used = int(text) if text.isdecimal() else 0
    # Half of the pages in use, as the kernel counts the machine's (MemAvailable): headers that compilers read are such.
    return max(0, used - int(pages.get("inactive", 0)) - int(pages.get("active", 0)) // 2)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
