"""What is built: the options that benchmarks share, as a request and as a command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from attnforge import Machine, Planned, Request, plan
from attnforge.provision.environment import BuildEnvironment
from attnforge.provision.source import fetch_sdist
from attnforge.provision.toolchain import Toolchain
from attnforge.workflow.inputs import host_compiler_of, provide_pinned

PACKAGE = "flash-attn==2.8.3"

# What a unit of FlashAttention 2 takes at least: a person sets MAX_JOBS so that as many fit into the memory.
_UNIT_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Case:
    """A build of FlashAttention 2, for H100 unless said otherwise. ``jobs`` 0 leaves the number to attnforge."""

    head_dims: tuple[int, ...] = ()
    dtypes: tuple[str, ...] = ()
    profile: str = "diffusion"
    gpus: tuple[str, ...] = ("H100",)
    without: tuple[str, ...] = ()
    python: str = ""
    torch: str = ""
    jobs: int = 0
    package: str = PACKAGE

    def request(self) -> Request:
        """Return the request of ``attnforge.plan``."""
        return Request(
            package=self.package,
            gpus=self.gpus,
            python=self.python,
            torch=self.torch,
            profile=self.profile,
            head_dims=self.head_dims,
            dtypes=self.dtypes,
            without=self.without,
            jobs=self.jobs,
        )

    def arguments(self) -> list[str]:
        """Return the words that ask ``attnforge build`` for the same."""
        options = {
            "--gpu": ",".join(self.gpus),
            "--profile": self.profile,
            "--python": self.python,
            "--torch": self.torch,
            "--head-dims": ",".join(map(str, self.head_dims)),
            "--dtypes": ",".join(self.dtypes),
            "--without": ",".join(self.without),
            "--jobs": str(self.jobs or ""),
        }
        return [self.package, *(word for name, value in options.items() if value for word in (name, value))]

    def __str__(self) -> str:
        return " ".join(self.arguments())


def add_options(parser: argparse.ArgumentParser, *, head_dims: str, dtypes: str, rounds: int) -> None:
    """Add the options that all benchmarks of builds have, with these defaults."""
    parser.add_argument("--head-dims", type=numbers, default=numbers(head_dims), help=f"default {head_dims}")
    parser.add_argument("--dtypes", type=words, default=words(dtypes), help=f"default {dtypes}")
    parser.add_argument("--python", default=f"{sys.version_info.major}.{sys.version_info.minor}", help="of the target")
    parser.add_argument("--torch", default="2.11.0", help="of the target, default 2.11.0")
    parser.add_argument("--jobs", type=int, default=0, help="compiles at once (default: by processors and memory)")
    parser.add_argument("--rounds", type=positive, default=rounds, help=f"default {rounds}")
    parser.add_argument("--json", action="store_true", help="print JSON, every run in it")


def case_of(given: argparse.Namespace, machine: Machine, profile: str = "diffusion") -> Case:
    """Return the case that these options describe."""
    return Case(
        head_dims=given.head_dims,
        dtypes=given.dtypes,
        profile=profile,
        python=given.python,
        torch=given.torch,
        jobs=given.jobs or jobs_of(machine),
    )


def jobs_of(machine: Machine) -> int:
    """Return how many compiles at once a careful person chooses: as many as processors, if they fit into the memory."""
    host = machine.host
    return max(min(host.cpus, host.memory.available_bytes // _UNIT_BYTES), 1)


def positive(text: str) -> int:
    """Read a number of 1 or more; ValueError for anything else."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def numbers(text: str) -> tuple[int, ...]:
    """Read a list such as ``64,128``."""
    return tuple(int(word) for word in words(text))


def words(text: str) -> tuple[str, ...]:
    """Read a list such as ``fp16,bf16``."""
    return tuple(word for word in text.split(",") if word)


def clean_environ() -> dict[str, str]:
    """Return our environment without the user's configuration of attnforge: everybody measures the same request."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ATTNFORGE_")}


@dataclass(frozen=True)
class Ground:
    """What both sides stand on, made before anything is timed."""

    machine: Machine
    planned: Planned
    archive: Path
    environment: BuildEnvironment
    toolchain: Toolchain


def prepare(machine: Machine, case: Case) -> Ground:
    """Fetch the source and make the environment and the toolchain of a case, where they are not there yet."""
    planned = plan(machine, case.request())
    built = planned.plan
    machine.folders.ensure()
    archive = fetch_sdist(built.package, built.version, built.source.sha256, machine.folders, machine.settings)
    target = built.target
    environment = machine.environment(target.python, target.torch, target.cuda, built.requirements)
    pin = built.toolchain
    toolchain = provide_pinned(machine, pin, host_compiler_of(machine, pin))
    return Ground(machine, planned, archive, environment, toolchain)


def compiler_of(machine: Machine, planned: Planned) -> str:
    """Return the path of the C++ compiler that the plan pins."""
    wanted = planned.plan.toolchain.host_compiler
    return next(found.path for found in machine.host.compilers if f"{found.name} {found.version}" == wanted)


def elsewhere(cache: Path, environ: Mapping[str, str]) -> Machine:
    """Return this machine with another cache folder."""
    return Machine({**environ, "ATTNFORGE_CACHE": str(cache)})
