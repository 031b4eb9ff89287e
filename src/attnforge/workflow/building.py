"""From a plan to an audited wheel."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from attnforge.audit.wheel import audit_wheel
from attnforge.compile.run.summary import Summary
from attnforge.errors import WheelError
from attnforge.files import file_sha256, write_whole
from attnforge.model.audit import AuditReport
from attnforge.model.events import Finished, Observer, ignore
from attnforge.model.plan import BuildPlan
from attnforge.model.universal import Pair
from attnforge.package.sbom import Vendored, vendored
from attnforge.package.universal import package_universal
from attnforge.package.wheel import package_wheel, torch_warnings
from attnforge.provision.environment import BuildEnvironment
from attnforge.resolve.advice import check_source
from attnforge.resolve.estimate import memory_budget
from attnforge.version import BUILDER
from attnforge.workflow.before import WHEELS, finished_wheels
from attnforge.workflow.compiling import Compiled, Job, Means, compile_upstream, temporary_folder
from attnforge.workflow.inputs import Inputs
from attnforge.workflow.layout import builder_of, lay_out_source, text_of
from attnforge.workflow.loading import prove
from attnforge.workflow.machine import Machine
from attnforge.workflow.outside import outside_warning
from attnforge.workflow.packed import compiled_files, refuse_packed, refuse_pure
from attnforge.workflow.pairs import PairEnvironments
from attnforge.workflow.planning import Planned
from attnforge.workflow.pure import build_pure
from attnforge.workflow.rehearsing import Rehearsing, check_rehearsed
from attnforge.workflow.report import report_of, write_report
from attnforge.workflow.requirements import requirements_of
from attnforge.workflow.results import Built, opened_cache
from attnforge.workflow.space import check_output, check_room, check_space, needs_of
from attnforge.workflow.stages import Stages, bad_wheel, deliver, expected_of, working_in
from attnforge.workflow.toolchains import host_compiler_of, provide_pinned
from attnforge.workflow.universal import Parts, Site, add_pairs, prepare, share
from attnforge.workflow.uptodate import first_report, is_whole, keep_report, up_to_date
from attnforge.workflow.variables import stated_version

_UNPROVEN = "unproven"


def build(machine: Machine, planned: Planned, out: Path, observe: Observer = ignore) -> Built:
    """Carry a plan out and put the wheel and its report into ``out``.

    Whatever was compiled before is used again, also what a killed build left. Two builds of one plan wait for each
    other. Raises HostError, BuildError or WheelError; a wheel that the audit finds bad is not put into ``out``.
    """
    started = time.monotonic()
    check_output(out)
    folder = machine.folders.ensure().builds / planned.plan.slug
    done = up_to_date(machine.folders, planned.plan, out, observe)
    if done is not None:
        return done
    if planned.installed is None:
        check_room(machine, planned.plan)
    with working_in(folder, observe) as stages:
        return _Build(machine, planned, folder, out, stages).run(started)


class _Build:
    """One run of a plan: holds what its stages share."""

    def __init__(self, machine: Machine, planned: Planned, folder: Path, out: Path, stages: Stages) -> None:
        self.machine, self.planned, self.folder = machine, planned, folder
        self.out, self.observe, self.log = out, stages.observe, stages.log
        self._stage, self._warn = stages.run, stages.warn
        self.pairs: tuple[tuple[Pair, Summary], ...] = ()

    @property
    def plan(self) -> BuildPlan:
        return self.planned.plan

    def run(self, started: float) -> Built:
        finished = self._finished()
        is_earlier = finished is not None
        if finished is None:
            self._check_space()
        source = self._stage("source", self.plan.source.name, self._source)
        for warning in check_source(self.plan, lambda name: text_of(source / name)):
            self._warn(warning)
        builder = builder_of(source)
        # Of a package without a recipe the plan says so.
        has_recipe = not self.planned.located.recipe.is_generic
        if builder and has_recipe and finished is None and self.plan.is_compiled:
            self._warn(outside_warning(builder, chosen=self.planned.located.recipe.outside))
        needed = requirements_of(self.plan, self.planned.located, source)
        environments = PairEnvironments(self.machine, self.plan.target.cuda, needed, self.planned.installed)
        target = self.plan.target
        detail = f"Python {target.python}, torch {target.torch or 'none'}"
        environment = self._stage("environment", detail, lambda: environments.having(target.python, target.torch))
        summary = None
        if finished is None:
            finished, summary = self._make(source, environment, environments)
        report = self._stage("audit", finished.name, lambda: self._audit(finished, environment, environments))
        if report.exit_code == WheelError.exit_code and is_earlier:
            # A wheel is kept only where the audit found it good.
            self._warn(f"the audit finds the wheel of an earlier build bad ({finished.name}); it is made again")
            again, summary = self._make(source, environment, environments)
            report = self._stage("audit", again.name, lambda: self._audit(again, environment, environments))
            return self._judged(again, environment, report, summary, started)
        return self._judged(finished, environment, report, summary, started)

    def _judged(
        self, wheel: Path, environment: BuildEnvironment, report: AuditReport, summary: Summary | None, started: float
    ) -> Built:
        """Deliver a wheel that the audit did not find bad. WheelError for one that it did, which is not kept."""
        if report.exit_code == WheelError.exit_code:
            shutil.rmtree(self.folder / WHEELS, ignore_errors=True)
            raise bad_wheel(report)
        return self._deliver(wheel, environment, report, summary, started)

    def _make(
        self, source: Path, environment: BuildEnvironment, environments: PairEnvironments
    ) -> tuple[Path, Summary | None]:
        if not self.plan.is_compiled:
            packed = self._stage("compile", "nothing: pure Python", lambda: self._pure(source, environment))
            return self._stage("package", self.plan.wheel, lambda: self._package(packed)), None
        pin = self.plan.toolchain
        compiler = host_compiler_of(self.machine, pin)
        mirror = self.planned.request.cuda_mirror
        provide = lambda: provide_pinned(self.machine, pin, compiler, mirror, self.observe)  # noqa: E731
        toolchain = self._stage("toolchain", f"CUDA {pin.cuda}", provide)
        inputs = Inputs(source, toolchain, environment, compiler)
        request, before = self.planned.request, compiled_files(source)
        # The environment may have taken much of what was free.
        self._check_space()
        with opened_cache(self.machine, request, self._warn) as cache:
            slots = request.jobs or self.machine.host.cpus
            means = Means(slots, memory_budget(request, self.machine.host), cache)
            if self.plan.is_universal:
                return self._make_universal(inputs, means, environments)
            compiled = self._stage("compile", self.plan.package, lambda: self._compile(inputs, means, self.plan))
        if not self.planned.located.recipe.outside:
            refuse_packed(compiled.wheel, before)
            refuse_pure(compiled.wheel, self.plan.package)
        packed, outside = compiled.wheel, not compiled.summary.units
        return self._stage(
            "package", self.plan.wheel, lambda: self._package(packed, vendored(source), outside=outside)
        ), compiled.summary

    def _make_universal(
        self, inputs: Inputs, means: Means, environments: PairEnvironments
    ) -> tuple[Path, Summary | None]:
        """Make the library and every pair's modules, and the wheel of them; it counts when all have been loaded."""
        plan, pairs = self.plan, self.plan.pairs
        located, tools = self.planned.located, (inputs.toolchain, inputs.compiler)
        site = Site(plan, located, environments, *tools, self.folder, means, self.observe, self.log)
        self._stage("environments", f"of {len(pairs)} pairs", lambda: prepare(site, inputs.source, pairs))
        # The first pair's own plan: its objects are the same in whatever wheel they lie.
        first = plan.at(pairs[0]).model_copy(update={"groups": plan.groups, "shared": plan.shared, "parts": plan.parts})
        compiled = self._stage("compile", plan.package, lambda: self._compile(inputs, means, first))
        parts, libraries = self._stage("library", "the kernels", lambda: share(site, inputs, compiled))
        if len(pairs) > 1:
            detail = f"for {len(pairs) - 1} further pairs of PyTorch and Python"
            more = self._stage("modules", detail, lambda: add_pairs(site, parts.universal, pairs[1:], libraries))
            parts, self.pairs = Parts(more.universal, {**parts.built, **more.built}), more.summaries
        wheel = self._stage(
            "package", plan.wheel, lambda: self._package_universal(compiled.wheel, inputs.source, parts)
        )
        self._stage("import", f"with {len(pairs)} pairs", lambda: prove(site, parts.universal, wheel, pairs))
        self._wheels.mkdir(parents=True, exist_ok=True)
        return wheel.replace(self._wheels / wheel.name), compiled.summary

    def _check_space(self) -> None:
        """Look whether there is room for what will be compiled. HostError where there is not."""
        slots = self.planned.request.jobs or self.machine.host.cpus
        there = sum(path.stat().st_size for path in (self.folder / "objects").glob("*.o"))
        check_space(needs_of(self.plan, slots, self.folder, temporary_folder(self.machine), self.out, there))

    @property
    def _wheels(self) -> Path:
        """Where the finished wheel goes."""
        return finished_wheels(self.folder)

    def _finished(self) -> Path | None:
        """Return the wheel that an earlier build of this plan finished, None where it is damaged or there is none."""
        kept = next(iter(sorted(self._wheels.glob("*.whl"))), None)
        if kept is None or is_whole(kept):
            return kept
        self._warn(f"the finished wheel of an earlier build is damaged ({kept.name}); it is made again")
        return None

    def _source(self) -> Path:
        return lay_out_source(self.machine, self.plan, self.planned.located, self.folder / "source", self._warn)

    def _compile(self, inputs: Inputs, means: Means, plan: BuildPlan) -> Compiled:
        recipe, located = self.planned.located.recipe, self.planned.located
        rehearsing = Rehearsing(
            folder=self.folder / "source",
            check=lambda wheel: check_rehearsed(wheel, plan, recipe, inputs, self.folder, self._warn),
            lay_out=lambda: lay_out_source(self.machine, self.plan, located, self.folder / "source", lambda _: None),
            trusted=bool(recipe.releases),
        )
        job = Job(self.machine, plan, recipe, inputs, self.folder, means, self.observe, self.log, rehearsing=rehearsing)
        return compile_upstream(job)

    def _pure(self, source: Path, environment: BuildEnvironment) -> Path:
        settings = {**dict(self.plan.settings), **stated_version(self.plan)}
        return build_pure(source, environment, settings, self.machine.environ, self.folder, self.log)

    def _package(self, upstream: Path, inside: Iterable[Vendored] = (), *, outside: bool = False) -> Path:
        for warning in torch_warnings(upstream, self.plan):
            self._warn(warning)
        shutil.rmtree(self.folder / WHEELS, ignore_errors=True)
        self._wheels.mkdir(parents=True)
        return package_wheel(upstream, self._wheels, self.plan, BUILDER, inside, outside=outside)

    def _package_universal(self, upstream: Path, source: Path, parts: Parts) -> Path:
        """Write the wheel where no other run takes it for a finished one: it has not been loaded yet."""
        for warning in torch_warnings(upstream, self.plan):
            self._warn(warning)
        shutil.rmtree(self.folder / WHEELS, ignore_errors=True)
        folder = self.folder / _UNPROVEN
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        inside = vendored(source)
        return package_universal(upstream, folder, self.plan, parts.universal, parts.built, BUILDER, inside)

    def _audit(self, wheel: Path, environment: BuildEnvironment, environments: PairEnvironments) -> AuditReport:
        recipe = self.planned.located.recipe
        expected = expected_of(self.plan, recipe)
        if self.plan.is_universal:
            sites = environments.sites(self.plan.pairs)
            return audit_wheel(wheel, sites=sites, libraries=environment.libraries, recipe=recipe, expected=expected)
        site, libraries = environment.site_packages, environment.libraries
        return audit_wheel(wheel, torch_site=site, libraries=libraries, recipe=recipe, expected=expected)

    def _deliver(
        self, wheel: Path, environment: BuildEnvironment, audit: AuditReport, summary: Summary | None, started: float
    ) -> Built:
        placed = deliver(wheel, self.out, self._warn)
        seconds = time.monotonic() - started
        resolution = self.planned.resolution
        first = first_report(self.folder, file_sha256(placed))
        if first:
            report = report_of(placed)
            write_whole(report, first)
        else:
            report = write_report(placed, resolution, environment.freeze, audit, summary, seconds, self.pairs)
            keep_report(self.folder, report)
        self.observe(Finished(self.plan.package, str(placed), str(report), seconds))
        return Built(placed, report, audit, summary, seconds)
