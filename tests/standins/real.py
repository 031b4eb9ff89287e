"""What tests of real packages share: a cache of their own, no CUDA of this machine in sight, and clean environments."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from attnforge import Machine

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def environment(cache: Path) -> dict[str, str]:
    """Return this process's environment, with a cache of its own and no CUDA in sight."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("CUDA", "ATTNFORGE"))}
    return {**kept, "ATTNFORGE_CACHE": str(cache)}


def attnforge(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of ours to its end."""
    command = [sys.executable, "-m", "attnforge", *arguments]
    return subprocess.run(command, env=environment(cache), capture_output=True, text=True)


def install(cache: Path, folder: Path, *requirements: str) -> str:
    """Install into a clean environment, from where this machine gets packages; return its Python."""
    uv = Machine(environment(cache)).uv
    uv.venv(folder, sys.executable)
    interpreter = folder / "bin" / "python"
    uv.install(interpreter, requirements)
    return str(interpreter)


def printed(interpreter: str, code: str) -> str:
    """Return what a program prints; AssertionError with what it says where it fails."""
    done = subprocess.run([interpreter, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
