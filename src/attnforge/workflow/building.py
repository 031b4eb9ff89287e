"""From a plan to an audited wheel."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from filelock import FileLock, Timeout

from attnforge import process
from attnforge.audit.wheel import audit_wheel
from attnforge.compile.cost import CostModel
from attnforge.compile.engine import Engine
from attnforge.compile.pipeline import passes_for
from attnforge.compile.prefixes import Prefixes
from attnforge.compile.reuse import Reuse
from attnforge.compile.summary import Summary
from attnforge.errors import BuildError, HostError, WheelError
from attnforge.model.audit import AuditReport, Expected
from attnforge.model.events import Finished, Message, Observer, StageFinished, StageStarted, ignore
from attnforge.model.host import HostCompiler
from attnforge.model.plan import UNSTATED, BuildPlan
from attnforge.package.wheel import package_wheel
from attnforge.provision.carrier import lay_out_carrier
from attnforge.provision.driver import provide_driver_stub
from attnforge.provision.environment import BuildEnvironment, site_include_dirs
from attnforge.provision.gpus import virtual_gpus
from attnforge.provision.indexes import file_sha256
from attnforge.provision.source import copy_tree, fetch_sdist, tree_sha256, unpack
from attnforge.provision.toolchain import Toolchain, provide_toolchain
from attnforge.recipes.catalogue import find_adapter
from attnforge.resolve.advice import check_source
from attnforge.resolve.estimate import cost_key, memory_budget, priors
from attnforge.version import BUILDER, fingerprint
from attnforge.workflow.fromgit import lay_out
from attnforge.workflow.machine import Machine
from attnforge.workflow.planning import Planned
from attnforge.workflow.pure import build_pure
from attnforge.workflow.report import write_report
from attnforge.workflow.results import opened_cache
from attnforge.workflow.upstream import REPRODUCIBLE, build_requirements, build_wheel

T = TypeVar("T")

_WHEELS = "wheel"

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR}


@dataclass(frozen=True, slots=True)
class Built:
    """What a build made. ``summary`` is None where nothing was compiled: the wheel was at hand, or is pure Python."""

    wheel: Path
    report: Path
    audit: AuditReport
    summary: Summary | None
    seconds: float


@dataclass(frozen=True, slots=True)
class _Ground:
    """What upstream's build stands on."""

    source: Path
    toolchain: Toolchain
    environment: BuildEnvironment
    compiler: HostCompiler


def build(machine: Machine, planned: Planned, out: Path, observe: Observer = ignore) -> Built:
    """Carry a plan out and put the wheel and its report into ``out``.

    Whatever was compiled before is used again, also what a killed build left. Two builds of one plan wait for each
    other. Raises HostError, BuildError or WheelError; a wheel that the audit finds bad is not put into ``out``.
    """
    started = time.monotonic()
    folder = machine.folders.ensure().builds / planned.plan.slug
    with _made(folder), _alone(folder, observe):
        log_path = folder / "log.txt"
        observe(Message("info", f"log: {log_path}"))
        with log_path.open("a", encoding="utf-8") as log:
            return _Build(machine, planned, folder, out, observe, log).run(started)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make the folder of the build. What the disk refuses, then or later, is the environment's fault and not ours."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> HostError:
    return HostError(
        f"{error.filename or folder} can't be written or read: {error.strerror or error}",
        hint="free space there, or set ATTNFORGE_CACHE and TMPDIR to folders with space; finished objects are kept",
    )


@contextmanager
def _alone(folder: Path, observe: Observer) -> Iterator[None]:
    lock = FileLock(folder.with_name(folder.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        observe(Message("info", "another build of the same plan is running; waiting for it"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _Build:
    """One run of a plan: holds what its stages share."""

    def __init__(
        self, machine: Machine, planned: Planned, folder: Path, out: Path, observe: Observer, log: IO[str]
    ) -> None:
        self.machine, self.planned, self.folder = machine, planned, folder
        self.out, self.observe, self.log = out, observe, log

    @property
    def plan(self) -> BuildPlan:
        return self.planned.plan

    def run(self, started: float) -> Built:
        finished = self._finished()
        source = self._stage("source", self.plan.source.name, self._source)
        for warning in check_source(self.plan, lambda name: _text(source / name)):
            self._warn(warning)
        detail = f"Python {self.plan.target.python}, torch {self.plan.target.torch or 'none'}"
        environment = self._stage("environment", detail, lambda: self._environment(source))
        summary = None
        if finished is None:
            finished, summary = self._make(source, environment)
        report = self._stage("audit", finished.name, lambda: self._audit(finished, environment))
        if report.exit_code == WheelError.exit_code:
            shutil.rmtree(self.folder / _WHEELS, ignore_errors=True)
            raise _bad(report)
        return self._deliver(finished, environment, report, summary, started)

    def _make(self, source: Path, environment: BuildEnvironment) -> tuple[Path, Summary | None]:
        if not self.plan.is_compiled:
            packed = self._stage("compile", "nothing: pure Python", lambda: self._pure(source, environment))
            return self._stage("package", self.plan.wheel, lambda: self._package(packed)), None
        compiler = _compiler(self.machine, self.plan)
        toolchain = self._stage("toolchain", f"CUDA {self.plan.toolchain.cuda}", lambda: self._toolchain(compiler))
        ground = _Ground(source, toolchain, environment, compiler)
        upstream, summary = self._stage("compile", self.plan.package, lambda: self._compile(ground))
        return self._stage("package", self.plan.wheel, lambda: self._package(upstream)), summary

    def _stage(self, name: str, detail: str, work: Callable[[], T]) -> T:
        began = time.monotonic()
        self.observe(StageStarted(name, detail))
        self.log.write(f"== {name}: {detail}\n")
        result = work()
        self.observe(StageFinished(name, detail, time.monotonic() - began))
        return result

    @property
    def _wheels(self) -> Path:
        """Where the finished wheel goes: another attnforge makes its own, since it may have mended something."""
        return self.folder / _WHEELS / fingerprint()

    def _finished(self) -> Path | None:
        """Return the wheel that an earlier build of this plan finished. Its hashes are checked by the audit."""
        return next(iter(sorted(self._wheels.glob("*.whl"))), None)

    def _source(self) -> Path:
        """Lay the source out anew: what upstream's build left in it before may be half written."""
        pin, into = self.plan.source, self.folder / "source"
        shutil.rmtree(into, ignore_errors=True)
        path, address = self.planned.located.path, self.planned.located.address
        if pin.kind == "git":
            assert address is not None
            folder, pointers = lay_out(self.machine, pin, address, into)
            if pointers:
                self._warn(f"Git LFS is not asked for the contents of {len(pointers)} files: {', '.join(pointers[:3])}")
            return folder
        if pin.kind == "sdist":
            folders, settings = self.machine.folders, self.machine.settings
            carrier = pin.carrier
            name, version = (
                (carrier.distribution, carrier.version) if carrier else (self.plan.package, self.plan.version)
            )
            top = unpack(fetch_sdist(name, version, pin.sha256, folders, settings), into)
            return lay_out_carrier(top, carrier) if carrier else top
        assert path is not None
        laid_out = unpack(path, into) if pin.kind == "archive" else copy_tree(path, into)
        if (file_sha256(path) if pin.kind == "archive" else tree_sha256(laid_out)) != pin.sha256:
            raise BuildError(f"{path} changed after it was planned", hint="run the same command again")
        return laid_out

    def _toolchain(self, compiler: HostCompiler) -> Toolchain:
        pin = self.plan.toolchain
        assert pin.origin != "none"
        homes = [toolkit.home for toolkit in self.machine.host.toolkits if toolkit.nvcc == pin.nvcc]
        home = homes[0] if homes else ""
        return provide_toolchain(pin.cuda, pin.origin, home, self.machine.folders, self.machine.uv, compiler.path)

    def _environment(self, source: Path) -> BuildEnvironment:
        # A package without a recipe says itself what its build imports; a recipe's list is complete and pinned.
        own = () if self.planned.located.recipe.releases else build_requirements(source)
        target = self.plan.target
        return self.machine.environment(target.python, target.torch, target.cuda, (*self.plan.requirements, *own))

    def _compile(self, ground: _Ground) -> tuple[Path, Summary]:
        plan, recipe, request = self.plan, self.planned.located.recipe, self.planned.request
        generated = self.folder / "generated"
        generated.mkdir(exist_ok=True)
        prefixes = named_folders(ground, generated)
        adapter = find_adapter(recipe)
        answers = answers_to(adapter.questions(), ground, generated, self.machine)
        passes = passes_for(
            plan,
            recipe,
            adapter.passes(plan, recipe, str(generated), answers),
            lambda what: cost_key(plan, what),
            prefixes,
            str(generated),
        )
        slots = request.jobs or self.machine.host.cpus
        temporary = Path(self.machine.environ.get("TMPDIR") or tempfile.gettempdir())
        with (
            opened_cache(self.machine, request, self._warn) as cache,
            Engine(
                folder=self.folder,
                slots=slots,
                budget_bytes=memory_budget(request, self.machine.host),
                passes=passes,
                costs=CostModel(self.machine.folders.costs, priors(plan, recipe)),
                observe=self.observe,
                log=self.log,
                temporary=temporary,
                reuse=Reuse(cache, Prefixes(prefixes)),
            ) as engine,
        ):
            environment = {
                **build_environment(plan, ground, engine.seat_folder, slots, self.machine.environ),
                "LIBRARY_PATH": str(self._driver_stub(ground)),
                **(virtual_gpus(plan.target.gpus) if recipe.asks_for_gpus else {}),
            }
            wheel = build_wheel(ground.source, ground.environment.python, environment, engine, self.folder, self.log)
            return wheel, engine.summary

    def _driver_stub(self, ground: _Ground) -> Path:
        environ = process.base_environment(self.machine.environ)
        folder = self.folder / "generated" / "stubs"
        return provide_driver_stub(ground.toolchain.home, ground.compiler.path, folder, self.machine.runner, environ)

    def _pure(self, source: Path, environment: BuildEnvironment) -> Path:
        settings = {**dict(self.plan.settings), **_stated_version(self.plan)}
        return build_pure(source, environment, settings, self.machine.environ, self.folder, self.log)

    def _warn(self, text: str) -> None:
        self.observe(Message("warning", text))

    def _package(self, upstream: Path) -> Path:
        shutil.rmtree(self.folder / _WHEELS, ignore_errors=True)
        self._wheels.mkdir(parents=True)
        return package_wheel(upstream, self._wheels, self.plan, BUILDER)

    def _audit(self, wheel: Path, environment: BuildEnvironment) -> AuditReport:
        recipe = self.planned.located.recipe
        target = self.plan.target.architectures
        code = recipe.code_of(self.plan.version, target) if self.plan.is_compiled else {}
        expected = Expected(
            architectures=tuple(one.sm for one in target) if code else (),
            modules=tuple(code),
            code=code,
            python=self.plan.target.python_tag,
        )
        return audit_wheel(wheel, torch_site=environment.site_packages, recipe=recipe, expected=expected)

    def _deliver(
        self, wheel: Path, environment: BuildEnvironment, audit: AuditReport, summary: Summary | None, started: float
    ) -> Built:
        self.out.mkdir(parents=True, exist_ok=True)
        placed = _copy(wheel, self.out / wheel.name)
        seconds = time.monotonic() - started
        report = write_report(placed, self.planned.resolution, environment.freeze, audit, summary, seconds)
        self.observe(Finished(self.plan.package, str(placed), str(report), seconds))
        return Built(placed, report, audit, summary, seconds)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _copy(source: Path, target: Path) -> Path:
    staged = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        shutil.copyfile(source, staged)
        staged.replace(target)
    finally:
        staged.unlink(missing_ok=True)
    return target


def _bad(report: AuditReport) -> WheelError:
    errors = [finding for finding in report.findings if finding.severity.value == "error"]
    return WheelError(
        f"the wheel {report.wheel} is bad and was not delivered",
        why="; ".join(f"{finding.subject}: {finding.seen}" for finding in errors),
        hint=errors[0].hint if errors else "",
        link=errors[0].link if errors else "",
    )


def _compiler(machine: Machine, plan: BuildPlan) -> HostCompiler:
    wanted = plan.toolchain.host_compiler
    return next(found for found in machine.host.compilers if f"{found.name} {found.version}" == wanted)


def named_folders(ground: _Ground, generated: Path) -> dict[str, str]:
    """Return the folders that differ from machine to machine, with the names that stand for them."""
    interpreter = ground.environment.python
    named = {
        ground.source: "source",
        generated: "generated",
        ground.environment.site_packages: "site-packages",
        interpreter.parent.parent: "environment",
        ground.toolchain.home: "cuda",
        ground.toolchain.home.resolve(): "cuda",
    }
    python = interpreter.resolve().parent.parent
    if python not in (Path("/"), Path("/usr"), Path("/usr/local")):
        named[python] = "python"
    return {str(folder): name for folder, name in named.items()}


def answers_to(questions: Mapping[str, str], ground: _Ground, folder: Path, machine: Machine) -> frozenset[str]:
    """Return the names of the C++ texts that compile against the PyTorch of the build."""
    answered = set()
    for name, text in questions.items():
        source = folder / f"{name}.cpp"
        source.write_text(text, encoding="utf-8")
        include = f"-I{ground.environment.site_packages / 'torch' / 'include'}"
        argv = (ground.compiler.path, "-std=c++17", "-fsyntax-only", include, str(source))
        command = process.Command(argv, folder, process.base_environment(machine.environ))
        if machine.runner(command).ok:
            answered.add(name)
    return frozenset(answered)


def _stated_version(plan: BuildPlan) -> dict[str, str]:
    """Tell setuptools-scm the version: a folder or commit is built without .git, where it would look for one."""
    known = plan.source.kind in ("folder", "git") and plan.version != UNSTATED
    return {"SETUPTOOLS_SCM_PRETEND_VERSION": plan.version} if known else {}


def build_environment(
    plan: BuildPlan, ground: _Ground, seat: Path, slots: int, environ: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of upstream's build: nothing of ours but what it needs, the seat first on PATH."""
    compiler = Path(ground.compiler.path)
    c_name = compiler.name.replace("clang++", "clang").replace("g++", "gcc").replace("c++", "cc")
    c_compiler = compiler.with_name(c_name)
    nvcc_folder = ground.toolchain.nvcc.parent
    searched = [seat, ground.environment.python.parent, nvcc_folder, compiler.parent, "/usr/bin", "/bin"]
    architectures = ";".join(architecture.dotted for architecture in plan.target.architectures)
    return {
        **process.base_environment(environ),
        **dict(plan.settings),
        **_stated_version(plan),
        "PATH": os.pathsep.join(map(str, searched)),
        "CUDA_HOME": str(ground.toolchain.home),
        # PyTorch writes the path of nvcc into build.ninja as it is, where a space would end it.
        "PYTORCH_NVCC": shlex.quote(str(ground.toolchain.nvcc)),
        "CXX": str(compiler),
        "CC": str(c_compiler if c_compiler.exists() else compiler),
        "TORCH_CUDA_ARCH_LIST": architectures,
        "MAX_JOBS": str(slots),
        "TORCH_EXTENSION_SKIP_NVCC_GEN_DEPENDENCIES": "1",
        # Headers of torch's own dependencies, which a partial toolkit lacks (FA#157); searched after all -I folders.
        "CPATH": os.pathsep.join(map(str, site_include_dirs(ground.environment))),
        **REPRODUCIBLE,
    }
