"""Times attnforge against upstream's own build of FlashAttention 2, side by side, on the same kernels and macros.

    python bench/upstream.py [--head-dims 64] [--dtypes fp16] [--rounds 3]

Both sides compile for an H100 the forward kernels of the diffusion profile and flash_api.cpp, with the same nvcc, host
compiler, PyTorch and Python, link, and pack a wheel. Each round runs one after the other, the order alternating.

Upstream's side is what a careful person does by hand: a copy of the source, the list of sources in its setup.py cut
down to these kernels, the macros of its setup.py uncommented, FLASH_ATTN_CUDA_ARCHS=90, real ninja, MAX_JOBS as many
as there are processors, NVCC_THREADS=1 (there is one architecture). The header that raises for what was left out is
attnforge's alone. attnforge's side is `attnforge build` with nothing compiled before; fetching, the environment and
the toolchain are there already, for both.

Last, the machine code of the two wheels is held against each other, function by function.

CPU seconds are those of all processes of a side; wall seconds are from start to end. It needs a network once, about
10 GB of disk, and minutes for each unit.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from attnforge import Machine, Planned, Request, compare_wheels, plan
from attnforge.provision.environment import EnvironmentPins, provide_environment, site_include_dirs
from attnforge.provision.source import fetch_sdist, unpack
from attnforge.provision.toolchain import provide_toolchain

MACROS = ("DROPOUT", "ALIBI", "SOFTCAP", "LOCAL")


@dataclass(frozen=True)
class Run:
    """One build: CPU and wall seconds."""

    cpu: float
    wall: float


def timed(command: Sequence[str], cwd: Path, env: dict[str, str]) -> Run:
    """Run a command and return what it and its children took; SystemExit with its output if it fails."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stdout[-4000:] + done.stderr[-4000:])
    return Run(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall)


class Upstream:
    """Upstream's own build of a cut-down copy."""

    def __init__(self, machine: Machine, planned: Planned, folder: Path) -> None:
        built = planned.plan
        archive = fetch_sdist(built.package, built.version, built.source.sha256, machine.folders, machine.settings)
        self.source = cut_down(unpack(archive, folder / "upstream"), planned)
        pins = EnvironmentPins(
            python=built.target.python,
            requirements=built.requirements,
            torch=built.target.torch,
            cuda=built.target.cuda,
        )
        environment = provide_environment(pins, machine.folders, machine.uv, machine.host.interpreters)
        toolchain = provide_toolchain(
            built.toolchain.cuda,
            built.toolchain.origin,
            next((kit.home for kit in machine.host.toolkits if kit.nvcc == built.toolchain.nvcc), ""),
            machine.folders,
            machine.uv,
            machine.host.compilers[0].path,
        )
        self.python = environment.python
        self.env = {
            "HOME": os.environ.get("HOME", "/"),
            "PATH": f"{environment.python.parent}:{toolchain.home}/bin:/usr/bin:/bin",
            "CUDA_HOME": str(toolchain.home),
            "CPATH": os.pathsep.join(map(str, site_include_dirs(environment))),
            "FLASH_ATTENTION_FORCE_BUILD": "TRUE",
            "FLASH_ATTN_CUDA_ARCHS": "90",
            "MAX_JOBS": str(machine.host.cpus),
            "NVCC_THREADS": "1",
        }

    def run(self) -> Run:
        """Build with nothing compiled before."""
        for made in ("build", "dist"):
            shutil.rmtree(self.source / made, ignore_errors=True)
        return timed([str(self.python), "setup.py", "bdist_wheel"], self.source, self.env)

    def wheel(self) -> Path:
        """Return the wheel of the last run."""
        return next((self.source / "dist").glob("*.whl"))


def cut_down(source: Path, planned: Planned) -> Path:
    """Edit a copy of upstream's setup.py as a person would: these kernels, these macros."""
    setup = source / "setup.py"
    text = setup.read_text()
    selection = planned.plan.selection
    units = {
        f"flash_fwd_hdim{head_dim}_{dtype}{causal}_sm80.cu"
        for head_dim in selection.head_dims
        for dtype in selection.dtypes
        for causal in ("", "_causal")
    }
    lines = []
    for line in text.splitlines():
        named = re.search(r"csrc/flash_attn/src/(flash_\w+\.cu)", line)
        if named and named[1] not in units:
            continue
        lines.append(re.sub(rf'# ("-DFLASHATTENTION_DISABLE_(?:{"|".join(MACROS)})",)', r"\1", line))
    setup.write_text("\n".join(lines) + "\n")
    return source


class Ours:
    """`attnforge build` in a cache whose builds are empty, and whose environments and toolchains are shared."""

    def __init__(self, options: Sequence[str], machine: Machine, folder: Path) -> None:
        self.folder, self.options = folder, options
        self.cache = folder / "cache"
        self.cache.mkdir()
        for room in (machine.folders.environments, machine.folders.toolchains, machine.folders.sources):
            (self.cache / room.name).symlink_to(room)
        self.env = {**os.environ, "ATTNFORGE_CACHE": str(self.cache)}

    def run(self) -> Run:
        """Build with nothing compiled before and nothing learned."""
        shutil.rmtree(self.cache / "builds", ignore_errors=True)
        (self.cache / "costs.json").unlink(missing_ok=True)
        out = self.folder / "dist"
        return timed(
            [sys.executable, "-m", "attnforge", "build", *self.options, "--out", str(out)], self.folder, self.env
        )

    def wheel(self) -> Path:
        """Return the wheel of the last run."""
        return next((self.folder / "dist").glob("*.whl"))


def summary(name: str, values: Sequence[float]) -> str:
    """One row: median, lowest, highest."""
    return f"{name:<28}{statistics.median(values):>9.2f}{min(values):>9.2f}{max(values):>9.2f}"


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head-dims", default="64")
    parser.add_argument("--dtypes", default="fp16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", default=f"{sys.version_info.major}.{sys.version_info.minor}")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    options = ["flash-attn==2.8.3", "--gpu", "H100", "--profile", "diffusion", "--head-dims", given.head_dims]
    options += ["--dtypes", given.dtypes, "--python", given.python, "--torch", "2.11.0"]
    machine = Machine(os.environ)
    planned = plan(
        machine,
        Request(
            package="flash-attn==2.8.3",
            gpus=("H100",),
            profile="diffusion",
            head_dims=tuple(int(text) for text in given.head_dims.split(",")),
            dtypes=tuple(given.dtypes.split(",")),
            python=given.python,
            torch="2.11.0",
        ),
    )
    with tempfile.TemporaryDirectory(prefix="attnforge-bench-") as name:
        folder = Path(name)
        upstream, ours = Upstream(machine, planned, folder), Ours(options, machine, folder)
        pairs = []
        for round_number in range(given.rounds):
            first, second = (upstream, ours) if round_number % 2 else (ours, upstream)
            one, other = first.run(), second.run()
            pairs.append((other, one) if first is upstream else (one, other))
            print(
                f"round {round_number + 1}: ours {pairs[-1][0]}, upstream {pairs[-1][1]}", file=sys.stderr, flush=True
            )
        comparison = compare_wheels(upstream.wheel(), ours.wheel())
    if given.json:
        print(json.dumps([{"ours": asdict(own), "upstream": asdict(theirs)} for own, theirs in pairs]))
        return
    same = sum(module.same for module in comparison.modules)
    print(f"machine code: {comparison.verdict} ({same} functions the same)")
    print(f"{'':<28}{'median':>9}{'lowest':>9}{'highest':>9}")
    print(summary("upstream, CPU seconds", [theirs.cpu for _, theirs in pairs]))
    print(summary("attnforge, CPU seconds", [own.cpu for own, _ in pairs]))
    print(summary("ratio, CPU", [own.cpu / theirs.cpu for own, theirs in pairs]))
    print(summary("upstream, wall seconds", [theirs.wall for _, theirs in pairs]))
    print(summary("attnforge, wall seconds", [own.wall for own, _ in pairs]))
    print(summary("ratio, wall", [own.wall / theirs.wall for own, theirs in pairs]))


if __name__ == "__main__":
    main()
