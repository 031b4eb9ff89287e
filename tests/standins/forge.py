"""Runs attnforge as a user does, in folders and an environment of its own."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from attnforge.cli.main import main
from standins.house import Toolkit

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
# The memory is named: what a neighbour holds must not decide how many units of a test run at once.
TARGET = (
    "--gpu",
    "H100",
    "--torch",
    "2.11.0",
    "--python",
    PYTHON,
    "--toolchain",
    "system",
    "--jobs",
    "2",
    "--memory",
    "16G",
)

# The text of a module in whose place a PyTorch would be, on a machine that has no GPU.
TORCH_WITHOUT_GPU = """
__version__ = "2.11.0+cu130"
class cuda:
    is_available = staticmethod(lambda: False)
    is_initialized = staticmethod(lambda: False)
class version:
    cuda = "13.0"
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """What ``--json`` printed: each line is one event, and every line has to be."""
        return [json.loads(line) for line in self.out.splitlines()]

    def seen(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of one kind."""
        return [event for event in self.events if event.get("event") == kind]

    def ok(self) -> Done:
        """Return this; AssertionError with what it printed where it is not 0."""
        assert self.code == 0, f"exit code {self.code}\n{self.out[-3000:]}\n{self.err[-3000:]}"
        return self


@dataclass(frozen=True)
class Forge:
    """A user's folder: home, cache, temporary files and output in it, the stand-ins around it."""

    folder: Path
    wheels: Path
    toolkit: Toolkit
    uv_cache: Path

    @property
    def cache(self) -> Path:
        """ATTNFORGE_CACHE."""
        return self.folder / "cache"

    @property
    def out(self) -> Path:
        """Where wheels go: ``dist`` in the folder that commands run in."""
        return self.folder / "dist"

    @property
    def temporary(self) -> Path:
        """TMPDIR."""
        return self.folder / "tmp"

    def environ(self, **changes: str) -> dict[str, str]:
        """Return the environment of commands: nothing of this process's; an empty value takes a variable away."""
        (self.folder / "home").mkdir(exist_ok=True)
        self.temporary.mkdir(exist_ok=True)
        values = {
            "HOME": str(self.folder / "home"),
            "PATH": os.pathsep.join((str(Path(sys.executable).resolve().parent), "/usr/bin", "/bin")),
            "LANG": "C.UTF-8",
            "TMPDIR": str(self.temporary),
            "CUDA_HOME": str(self.toolkit.home),
            "ATTNFORGE_CACHE": str(self.cache),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": self.wheels.as_uri(),
            "UV_NO_CONFIG": "1",
            "UV_CACHE_DIR": str(self.uv_cache),
            "UV_HTTP_RETRIES": "0",
            "UV_PYTHON_DOWNLOADS": "never",
        }
        return {key: value for key, value in {**values, **changes}.items() if value}

    def run(self, *arguments: str | Path, prefix: Sequence[str] = (), **changes: str) -> Done:
        """Run a command to its end; ``prefix`` are words before it."""
        process = self.start(*arguments, prefix=prefix, **changes)
        out, err = process.communicate(timeout=170)
        return Done(process.returncode, out, err)

    def main(self, *arguments: str | Path, **changes: str) -> Done:
        """Run a command in this process, and in its current folder."""
        out, err = io.StringIO(), io.StringIO()
        code = main([str(argument) for argument in arguments], self.environ(**changes), out, err)
        return Done(code, out.getvalue(), err.getvalue())

    def start(self, *arguments: str | Path, prefix: Sequence[str] = (), **changes: str) -> subprocess.Popen[str]:
        """Start a command in a session of its own."""
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "attnforge", *map(str, arguments)],
            cwd=self.folder,
            env=self.environ(**changes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A runner in the background of a shell ignores it, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def build(self, source: str | Path, *arguments: str | Path, prefix: Sequence[str] = (), **changes: str) -> Done:
        """Build for the usual target, telling what happens as JSON."""
        return self.run("build", source, *TARGET, "--json", *arguments, prefix=prefix, **changes)

    def install(self, wheel: Path, torch: str = "", base: str = "") -> Path:
        """Install a wheel into a clean environment, with what it requires from the folder of wheels; its Python.

        ``torch`` is the version to install with it, ``base`` the interpreter, where they are not the usual ones.
        """
        from uv import find_uv_bin

        clean = self.folder / f"clean-{wheel.stem}-{torch}-{Path(base).name}"
        environ = self.environ()
        where = ["--no-index", "--find-links", str(self.wheels), "--python", str(clean)]
        wanted = [str(wheel), *([f"torch=={torch}"] if torch else [])]
        base = base or str(Path(sys.executable).resolve())
        subprocess.run([find_uv_bin(), "venv", "--quiet", "--python", base, clean], env=environ, check=True)
        subprocess.run([find_uv_bin(), "pip", "install", "--quiet", *where, *wanted], env=environ, check=True)
        return clean / "bin" / "python"

    def python(self, interpreter: Path, code: str) -> str:
        """Return what a program prints, run away from any source."""
        command = [str(interpreter), "-I", "-c", code]
        return subprocess.run(
            command, cwd="/", env=self.environ(), check=True, capture_output=True, text=True
        ).stdout.strip()

    def wheel(self) -> Path:
        """Return the only wheel in the output folder."""
        (wheel,) = self.out.glob("*.whl")
        return wheel

    def objects(self) -> int:
        """Return how many objects of units are kept: the empty one that a rehearsal links for missing ones is none."""
        records = [json.loads(path.read_text()) for path in self.cache.glob("builds/*/objects/*.json")]
        return sum(os.devnull not in record["argv"] for record in records)

    def processes(self) -> list[str]:
        """Return the command lines of all processes that name this folder."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(self.folder) in line:
                found.append(line)
        return found


def with_tmpfs(place: Path, options: str) -> list[str]:
    """Return words before a command that run it with an empty file system in memory on ``place``, seen by it alone.

    Skips the test where this machine lets no one mount anything.
    """
    script = 'mount -t tmpfs -o "$1" tmpfs "$2" && shift 2 && exec "$@"'
    for flags in (["--mount"], ["--mount", "--user", "--map-root-user"]):
        words = ["unshare", *flags, "sh", "-c", script, "sh", options, str(place)]
        try:
            if subprocess.run([*words, "true"], capture_output=True).returncode == 0:
                return words
        except FileNotFoundError:
            break
    pytest.skip("no file system can be mounted here (neither as root nor in a user namespace)")


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
