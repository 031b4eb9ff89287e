"""The functions that ``attnforge`` exports: the verbs of the command line for Python programs.

Paths may be ``str`` or ``os.PathLike``. A path argument of another type raises RequestError that names it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from attnforge.audit import compare
from attnforge.errors import RequestError
from attnforge.model.audit import AuditReport
from attnforge.model.benchmark import BenchReport
from attnforge.model.check import CaseResult, CheckReport
from attnforge.model.comparison import Comparison
from attnforge.model.events import Observer, ignore
from attnforge.model.request import Request
from attnforge.workflow import auditing, benchmarking, building, checking, extending, planning
from attnforge.workflow import extension as extensions
from attnforge.workflow.benchmarking import BenchOptions
from attnforge.workflow.extension import Extension
from attnforge.workflow.machine import Machine
from attnforge.workflow.planning import Planned
from attnforge.workflow.results import Built

AnyPath = str | os.PathLike[str]


def silent(line: str) -> None:
    """Print nothing."""


def plan(machine: Machine, request: Request) -> Planned:
    """Resolve a request to a plan, without building.

    It reads the package index or a git server only where the recipe pins nothing. Raises RequestError for a request
    that is wrong or impossible, HostError where this machine lacks something.
    """
    return planning.plan(machine, request)


def build(machine: Machine, planned: Planned, out: AnyPath, observe: Observer = ignore) -> Built:
    """Build a plan and put the wheel and its report into the folder ``out``.

    Objects of earlier builds are used again, also those of a killed build. Two builds of one plan wait for each other.
    ``observe`` is called with each event. Raises HostError, BuildError or WheelError. A wheel that the audit finds bad
    is not put into ``out``.
    """
    return building.build(machine, planned, _path("out", out), observe)


def plan_extension(machine: Machine, wheel: AnyPath, request: Request, recipe_file: AnyPath = "") -> Extension:
    """Plan to add pairs of PyTorch and Python to a universal wheel.

    The request's ``torch`` and ``python`` name the versions to add, as in a universal build. Where one is empty, the
    versions in the wheel are used. ``env``, ``source``, ``toolchain``, ``cuda_mirror``, ``jobs``, ``memory``, ``store``
    and ``cache_limit`` are used too; other fields come from the wheel. ``recipe_file`` is your own recipe if the wheel
    was built with one. Raises RequestError where the wheel can't be extended.
    """
    recipe = os.fspath(_path("recipe_file", recipe_file)) if recipe_file else ""
    return extensions.plan_extension(machine, _path("wheel", wheel), request, recipe)


def extend(machine: Machine, extension: Extension, out: AnyPath, observe: Observer = ignore) -> Built:
    """Build a wheel with the added pairs and put it and its report into the folder ``out``.

    The old wheel is not changed, and its modules are copied byte for byte. No kernel is compiled. Raises HostError,
    BuildError or WheelError.
    """
    return extending.extend(machine, extension, _path("out", out), observe)


def audit_wheel(
    machine: Machine,
    wheel: AnyPath,
    python: AnyPath = "",
    torch: str = "",
    beside: Iterable[AnyPath] = (),
    tell: Callable[[str], object] = silent,
) -> AuditReport:
    """Audit a wheel: machine code, symbols, glibc, metadata.

    ``python`` is an interpreter or environment whose PyTorch the wheel is checked against, ``torch`` a version, or
    ``installed`` for the active environment. Without either, the active environment is used if the wheel was built for
    its PyTorch, else the PyTorch that the wheel names. Where there is none, symbols are reported as unchecked.
    ``beside`` are wheels to be installed with it: files that several own are reported. ``tell`` is called with a line
    on the environment that was chosen. Raises RequestError, HostError or WheelError where it can't be audited.
    """
    others = [_path("beside", path) for path in _paths("beside", beside)]
    return auditing.audit(machine, _path("wheel", wheel), _text("python", python), torch, others, tell)


def check_wheel(
    machine: Machine,
    wheel: AnyPath,
    *,
    python: AnyPath = "",
    torch: str = "",
    quick: bool = False,
    only: tuple[str, ...] = (),
    timeout: float = checking.TIMEOUT,
    observe: Callable[[CaseResult], None] = checking.ignore,
    tell: Callable[[str], object] = silent,
    device: str = "cuda",
) -> CheckReport:
    """Check on the GPU of this machine that a wheel computes correct results.

    ``python`` is an interpreter or environment with PyTorch, in which nothing is installed. ``torch`` is the PyTorch
    of the clean environment that is created otherwise, or ``installed`` for the active environment. ``only`` are
    topics, ``timeout`` is in seconds for each case. ``observe`` is called with each result. ``device`` ``cpu`` is for
    attnforge's own tests. Without a GPU the verdict is unchecked. Raises RequestError, HostError or WheelError where
    the wheel can't be run at all.
    """
    return checking.check(
        machine,
        _path("wheel", wheel),
        python=_text("python", python),
        torch=torch,
        quick=quick,
        only=only,
        timeout=timeout,
        device=device,
        observe=observe,
        tell=tell,
    )


def bench_wheels(
    machine: Machine,
    wheels: Iterable[AnyPath],
    against: Iterable[AnyPath] = (),
    options: BenchOptions | None = None,
    tell: Callable[[str], None] = silent,
) -> BenchReport:
    """Time the attention of wheels, and PyTorch's own, over a grid of shapes.

    ``against`` are two wheels of one package to compare. ``tell`` is called with a line for each step. A call that
    fails is the result of its cell. Raises RequestError, HostError, WheelError for a wheel that can't be unpacked, and
    UncheckedError without a GPU.
    """
    timed = [_path("wheels", path) for path in _paths("wheels", wheels)]
    compared = [_path("against", path) for path in _paths("against", against)]
    return benchmarking.bench_wheels(machine, timed, compared, options, tell)


def compare_wheels(a: AnyPath, b: AnyPath) -> Comparison:
    """Compare the machine code of two wheels, which may be for different Pythons or PyTorches.

    Raises RequestError for a file that does not exist, WheelError for one that is not a whole archive, and HostError
    where there is no disk space to unpack its modules.
    """
    return compare.compare_wheels(_path("a", a), _path("b", b))


def _path(argument: str, value: AnyPath) -> Path:
    """Return an argument as a path; RequestError that names it for one that is no path."""
    if not isinstance(value, str | os.PathLike) or isinstance(value, bytes):
        raise RequestError(f"{argument} must be a path, not {value!r}", hint=f"pass {argument} as str or pathlib.Path")
    return Path(value)


def _paths(argument: str, values: Iterable[AnyPath]) -> Iterable[AnyPath]:
    """Return several paths; RequestError for a single one, of which each character would be a path."""
    if isinstance(values, str | os.PathLike):
        raise RequestError(f"{argument} must be a list of paths, not {values!r}", hint=f"{argument}=[{values!r}]")
    return values


def _text(argument: str, value: AnyPath) -> str:
    return os.fspath(_path(argument, value)) if value else ""
