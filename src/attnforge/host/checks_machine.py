"""Findings about the machine: system, cores, memory, disks, GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from attnforge.knowledge.host_compilers import major_version
from attnforge.model.finding import Finding, Severity, Topic
from attnforge.model.host import Disk, Host

# Measured with nvcc 13.0, one architecture: forward units of flash-attn 2.8.3 without optional features peak at 3.35 to
# 3.8 GB, backward units with all features at 6.2 GB, FlashAttention 3's forward units at 6.6 GB.
SLIM_UNIT_BYTES = 4_000_000_000
HEAVY_UNIT_BYTES = 6_500_000_000

# Measured: an environment with PyTorch 2.11.0+cu130 takes 4.5 GB. The rest is space for downloads, sources and objects.
_ROOMY = {"build": 5_000_000_000, "cache": 10_000_000_000, "temporary": 2_000_000_000}
_LEAST = {"build": 1_000_000_000, "cache": 1_000_000_000, "temporary": 500_000_000}
_SETTING = {"build": "ATTNFORGE_CACHE", "cache": "ATTNFORGE_CACHE", "temporary": "TMPDIR"}

_FA = "https://github.com/Dao-AILab/flash-attention/issues"


def gigabytes(size: int) -> str:
    """Return ``7.5 GB`` (of 10**9 bytes) for a number of bytes."""
    return f"{size / 1e9:.1f} GB"


def system(host: Host) -> Finding:
    """Only Linux on x86_64 builds: the wheels' platform and the toolchains are for it."""
    topic = Topic("system", "system")
    seen = f"{host.system} on {host.machine}"
    if (host.system, host.machine) == ("Linux", "x86_64"):
        return topic.ok(seen)
    return topic.error(
        seen,
        means="attnforge builds wheels for Linux on x86_64, and only there",
        hint="use a Linux x86_64 machine, virtual machine or container",
    )


def libc(host: Host) -> Finding:
    """A wheel needs a glibc at least as new as the one that it was linked against."""
    topic = Topic("libc", "C library")
    name, _, version = host.libc.partition(" ")
    if name == "glibc":
        means = f"a wheel that is linked here may need a system with glibc {version} or newer; audit shows which"
        return topic.ok(host.libc, means=means, link=f"{_FA}/1708")
    if name == "musl":
        return topic.error(
            host.libc,
            means="PyTorch has no wheels for musl, and nvcc does not run on it",
            hint="build on a glibc system, for example in a Debian or AlmaLinux container",
        )
    return topic.unchecked(
        "neither glibc nor musl was recognized",
        means="which systems the wheel will run on is not known until it is audited",
        hint="run attnforge audit on the wheel",
    )


def cores(host: Host) -> Finding:
    """How many compiles can run at once, as far as cores go."""
    limited = host.cpus < host.cpus_total
    seen = f"{host.cpus} of {host.cpus_total}, limited by {host.cpus_limited_by}" if limited else str(host.cpus)
    return Topic("cores", "usable cores").of(
        Severity.INFO if limited else Severity.OK,
        seen,
        means=f"at most {host.cpus} compiles at once",
        hint="raise the container's CPU limit or affinity for a faster build" if limited else "",
    )


def fitting(available_bytes: int, cpus: int, unit_bytes: int) -> int:
    """Return how many compiles of that peak fit into memory at once, at most one for each CPU."""
    return min(cpus, available_bytes // unit_bytes)


def memory(host: Host) -> Finding:
    """How many compiles fit into memory at once, by their measured peaks."""
    state = host.memory
    seen = f"{gigabytes(state.available_bytes)} available of {gigabytes(state.limit_bytes)}"
    if state.limited_by != "machine":
        seen += f" (of {gigabytes(state.total_bytes)}, limited by {state.limited_by})"
    slim, heavy = (fitting(state.available_bytes, host.cpus, size) for size in (SLIM_UNIT_BYTES, HEAVY_UNIT_BYTES))
    means = (
        f"compiles that fit at once: {slim} slim (measured: about {gigabytes(SLIM_UNIT_BYTES)} each), "
        f"{heavy} heavy (measured: about {gigabytes(HEAVY_UNIT_BYTES)} each)"
    )
    severity, hint = _memory_severity(state.limit_bytes, state.available_bytes)
    return Topic("memory", "memory").of(severity, seen, means=means, hint=hint, link=f"{_FA}/2493")


def _memory_severity(limit: int, available: int) -> tuple[Severity, str]:
    if limit < SLIM_UNIT_BYTES:
        return Severity.ERROR, "use a machine or container with at least 8 GB: a compile would be killed here"
    if available < SLIM_UNIT_BYTES:
        return Severity.WARNING, "end other programs first: right now a compile would be killed"
    if available < HEAVY_UNIT_BYTES:
        return Severity.WARNING, "leave out what is not needed: --profile inference or diffusion, --head-dims 64,128"
    return Severity.OK, ""


def disks(host: Host) -> Iterator[Finding]:
    """Free space of each folder, and whether they share a file system."""
    yield from (_disk(disk) for disk in host.disks)
    yield _shared(host)


def _disk(disk: Disk) -> Finding:
    subject = f"{disk.purpose} folder"
    seen = f"{disk.path}: {gigabytes(disk.free_bytes)} free"
    setting = _SETTING[disk.purpose]
    elsewhere = f"set {setting} to a folder on another disk, for example {setting}=/var/tmp/attnforge"
    code = f"disk-{disk.purpose}"
    if not disk.writable:
        return Topic(code, subject).error(
            f"{disk.path} can't be written", means="nothing can be built there", hint=elsewhere
        )
    needs = f"a build needs about {gigabytes(_ROOMY[disk.purpose])} there (PyTorch's environment takes 4.5 GB of it)"
    if disk.purpose == "temporary":
        needs = f"compilers keep up to {gigabytes(_ROOMY[disk.purpose])} of temporary files there"
    if disk.free_bytes < _LEAST[disk.purpose]:
        return Topic(code, subject).error(seen, means=needs, hint=elsewhere)
    if disk.free_bytes < _ROOMY[disk.purpose]:
        return Topic(code, subject).warning(seen, means=needs, hint=elsewhere)
    return Topic(code, subject).ok(seen)


def _shared(host: Host) -> Finding:
    topic = Topic("disk-shared", "file systems")
    devices = {disk.purpose: disk.device for disk in host.disks}
    if len(set(devices.values())) <= 1:
        return topic.ok("one for all folders")
    means = "a file can't be renamed from one to the other: attempts end with 'Invalid cross-device link'"
    together = devices.get("build") == devices.get("cache")
    return topic.of(
        Severity.INFO if together else Severity.WARNING,
        ", ".join(f"{purpose} on device {device}" for purpose, device in devices.items()),
        means=means,
        hint=""
        if together
        else "put build and cache folders on one file system: set ATTNFORGE_CACHE, and mount nothing in it",
        link=f"{_FA}/875",
    )


def gpus(host: Host) -> Finding:
    """A build needs no GPU; checking results does."""
    topic = Topic("gpus", "GPUs")
    if host.gpus:
        seen = ", ".join(f"{gpu.name} ({gpu.capability.dotted})" for gpu in host.gpus)
        means = "--gpu native builds for these"
        return topic.ok(seen, means=means)
    return topic.info(
        "none",
        means="wheels build without one; the numbers that they compute can't be checked here",
        hint="name the GPUs that the wheel is for, for example --gpu H100",
    )


def driver(host: Host, target_cuda: str) -> Finding:
    """Whether the driver runs what is built: any of its own CUDA major version, else up to its CUDA version.

    Source: https://docs.nvidia.com/deploy/cuda-compatibility/ (minor version compatibility).
    """
    topic = Topic("driver", "NVIDIA driver")
    link = "https://docs.nvidia.com/deploy/cuda-compatibility/"
    if not host.driver:
        means = "wheels build without one and don't run here" if not host.gpus else ""
        return topic.info("none", means=means)
    seen = f"{host.driver}, runs CUDA up to {host.driver_cuda or 'an unknown version'}"
    if target_cuda and host.driver_cuda and major_version(target_cuda) > major_version(host.driver_cuda):
        return topic.warning(
            seen,
            means=f"a wheel for CUDA {target_cuda} can be built but not run here",
            hint=f"update the driver, or build for CUDA {major_version(host.driver_cuda)}: --cuda {host.driver_cuda}",
            link=link,
        )
    means = "that is the driver's limit and says nothing of the toolkit that compiles"
    return topic.ok(seen, means=means, link=f"{_FA}/1477")
