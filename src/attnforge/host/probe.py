"""Reads the machine once. Nothing else reads it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from attnforge import process
from attnforge.host.graphics import find_graphics
from attnforge.host.interpreters import find_interpreters, on_path
from attnforge.host.machine import find_disks, find_libc, usable_cpus, usable_memory
from attnforge.host.programs import Programs
from attnforge.host.toolkits import find_compilers, find_toolkits
from attnforge.model.host import Host
from attnforge.paths import Folders
from attnforge.process import Runner

_AT_ONCE = 8
"""Programs that are asked at once: they mostly wait for the disk."""


def probe(environ: Mapping[str, str], folders: Folders, runner: Runner = process.run, root: Path = Path("/")) -> Host:
    """Return a snapshot of the machine.

    Files of the system are read under ``root`` (/proc, /sys, /usr/local), programs are found on ``environ``'s PATH and
    run by ``runner``. A program that is missing or fails leaves its field empty. HostError where the machine does not
    report its memory.
    """
    programs = Programs(runner, environ)
    total = os.cpu_count() or 1
    cpus, cpus_limited_by = usable_cpus(len(os.sched_getaffinity(0)), total, root)
    return Host(
        system=platform.system(),
        machine=platform.machine(),
        libc=find_libc(root),
        cpus=cpus,
        cpus_total=total,
        cpus_limited_by=cpus_limited_by,
        memory=usable_memory(root),
        disks=find_disks(folders, environ),
        torch=_distribution("torch"),
        python=platform.python_version(),
        **_asked(programs, root),
    )


def _asked(programs: Programs, root: Path) -> dict[str, Any]:
    """Return the fields that programs answer; all of them run at the same time."""
    uv = _uv(programs)
    with ThreadPoolExecutor(_AT_ONCE) as pool, ThreadPoolExecutor(_AT_ONCE) as inner:
        answers: dict[str, Future[Any]] = {
            "interpreters": pool.submit(find_interpreters, programs, uv, inner.map),
            "toolkits": pool.submit(find_toolkits, programs, root),
            "compilers": pool.submit(find_compilers, programs),
            "pip": pool.submit(_pip, programs),
            "uv": pool.submit(_version_of, programs, uv),
            "git": pool.submit(_version_of, programs, str(programs.find("git") or "")),
        }
        seen = pool.submit(find_graphics, programs).result()
        graphics = {"gpus": seen.gpus, "driver": seen.driver, "driver_cuda": seen.driver_cuda}
        return {**graphics, **{name: answer.result() for name, answer in answers.items()}}


def _uv(programs: Programs) -> str:
    """Return the path of uv: the one that came with attnforge, else the one on PATH, else ""."""
    try:
        from uv import find_uv_bin

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        return str(programs.find("uv") or "")


def _version_of(programs: Programs, program: str) -> str:
    return programs.version(program, "--version") if program else ""


def _pip(programs: Programs) -> str:
    """Return the version of pip beside attnforge, else of the first Python on PATH.

    Its metadata is read, because pip itself takes most of a second.
    """
    here = _distribution("pip")
    python = next(on_path(programs), None)
    if here or python is None:
        return here
    return programs.version(python, "-c", "from importlib import metadata; print(metadata.version('pip'))")


def _distribution(name: str) -> str:
    """Return the version of what is installed beside attnforge, without importing it; "" if it is not."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
