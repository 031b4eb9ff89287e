"""Adds pairs of PyTorch and Python to a universal wheel: from it and the package's source, with no kernel compiled."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import InvalidVersion, Version

from attnforge.audit.wheel import audit_wheel
from attnforge.embedded import read_plan, read_universal
from attnforge.errors import RequestError, WheelError
from attnforge.knowledge.torch import TorchRelease
from attnforge.link.linker import Library
from attnforge.model.audit import AuditReport
from attnforge.model.events import Finished, Observer, ignore
from attnforge.model.host import Installed
from attnforge.model.plan import BuildPlan, PlanWarning, ToolchainPin
from attnforge.model.recipe import Recipe
from attnforge.model.release import Release
from attnforge.model.request import Request
from attnforge.model.universal import Pair, Universal, sorted_pairs
from attnforge.package.archive import read_members
from attnforge.package.sbom import Vendored, vendored
from attnforge.package.universal import extend_wheel
from attnforge.provision.giturl import parse_address
from attnforge.provision.source import open_local
from attnforge.recipes.catalogue import find_recipe
from attnforge.recipes.own import read_recipe
from attnforge.resolve.advice import apply_advisories, check_source
from attnforge.resolve.decisions import Notes
from attnforge.resolve.estimate import memory_budget
from attnforge.resolve.installed import check_named, pair_of_installed, pin_of
from attnforge.resolve.pairs import pairs_for, with_pairs
from attnforge.resolve.releases import check_release
from attnforge.resolve.selection import settings_of
from attnforge.resolve.spans import torches_of
from attnforge.resolve.toolchain import choose_toolkit, with_compiler
from attnforge.resolve.versions import named_cuda
from attnforge.version import BUILDER
from attnforge.workflow.compiling import Means
from attnforge.workflow.installed import environment_for
from attnforge.workflow.layout import lay_out_source, text_of
from attnforge.workflow.loading import prove
from attnforge.workflow.machine import Machine
from attnforge.workflow.pairs import PairEnvironments
from attnforge.workflow.redist import asked_release
from attnforge.workflow.report import write_extension_report
from attnforge.workflow.requirements import requirements_of
from attnforge.workflow.results import Built, opened_cache
from attnforge.workflow.sources.kinds import Carried, Commit, Located, Sdist, local_source
from attnforge.workflow.space import check_output
from attnforge.workflow.stages import Stages, bad_wheel, deliver, expected_of, working_in
from attnforge.workflow.toolchains import host_compiler_of, provide_pinned
from attnforge.workflow.torchindex import read_torches
from attnforge.workflow.universal import Parts, Site, add_pairs, prepare


@dataclass(frozen=True, slots=True)
class Extension:
    """What is added to which wheel.

    ``plan`` is that of the new wheel, ``pairs`` those that it has and the old one has not.
    """

    wheel: Path
    universal: Universal
    plan: BuildPlan
    pairs: tuple[Pair, ...]
    located: Located
    toolchain: ToolchainPin
    request: Request
    warnings: tuple[PlanWarning, ...] = ()
    installed: Installed | None = None


def plan_extension(machine: Machine, wheel: Path, request: Request, recipe_file: str = "") -> Extension:
    """Return what an extension would do.

    Of ``request`` count ``torch`` and ``python`` (as in a universal build; the wheel's own where one is not given), or
    ``torch`` ``installed`` or ``env`` for the PyTorch and Python of one environment,
    ``source`` for a folder or archive, ``toolchain``, ``jobs``, ``memory``, ``store``. ``recipe_file`` is the user's
    own recipe, where the wheel was built with one. RequestError where the wheel can't be extended so.
    """
    universal = read_universal(wheel)
    plan = read_plan(wheel)
    if plan is None or universal is None:
        raise _not_universal(wheel, plan)
    _check_version(plan, wheel)
    recipe, release = _recipe(plan, recipe_file)
    _check_source_pin(plan, recipe, release, request.source)
    notes = Notes()
    check_named(request)
    installed = environment_for(machine, request)
    read = () if installed else read_torches(request.torch or _held_torches(plan), machine.settings)
    pairs = _pairs_of(plan, installed, notes) if installed else _new_pairs(plan, request, notes, read)
    torches = torches_of(pairs)
    # The kernels are there already: what counts for them is the compiler that made them.
    compiler = plan.toolchain.cuda
    check_release(recipe, release, compiler, torches, plan.target.cuda, read)
    built = plan.selection.features
    apply_advisories(plan.package, plan.version, plan.source.commit, plan.target, compiler, torches, built, notes)
    fetched = asked_release(machine, request)
    toolkit = choose_toolkit(plan.target.cuda, request.toolchain, machine.host, notes, fetched)
    pin = with_compiler(toolkit, (), machine.host, notes)
    if pin.host_compiler != plan.toolchain.host_compiler:
        pairs = tuple(pair.model_copy(update={"host_compiler": pin.host_compiler}) for pair in pairs)
    located = _located(plan, recipe, request.source)
    extended = with_pairs(plan, sorted_pairs((*plan.pairs, *pairs)), recipe, release)
    return Extension(wheel, universal, extended, pairs, located, pin, request, notes.warnings, installed)


def _check_version(plan: BuildPlan, wheel: Path) -> None:
    try:
        Version(plan.version)
    except InvalidVersion as error:
        raise WheelError(f"{wheel.name} has a plan of no version", why=str(error)) from error


def _held_torches(plan: BuildPlan) -> str:
    return ",".join(dict.fromkeys(pair.torch for pair in plan.pairs))


def _new_pairs(plan: BuildPlan, request: Request, notes: Notes, read: Sequence[TorchRelease]) -> tuple[Pair, ...]:
    if not (request.torch or request.python):
        raise RequestError("nothing to add is named", hint="--torch 2.14, --python 3.13, or both")
    torches = request.torch or _held_torches(plan)
    pythons = request.python or ",".join(dict.fromkeys(pair.python for pair in plan.pairs))
    held = {pair.key for pair in plan.pairs}
    named = named_cuda(torches, read)
    if named not in ("", plan.target.cuda):
        raise RequestError(
            f"--torch {torches} is built with CUDA {named}, and the wheel is for {plan.target.cuda}",
            hint="build a wheel of its own for that CUDA: attnforge build --universal",
        )
    asked = pairs_for(torches, pythons, plan.target.cuda, notes, read)
    new = tuple(pair for pair in asked if pair.key not in held)
    if not new:
        raise RequestError(f"the wheel has {', '.join(map(str, asked))} already", hint="it can be installed as it is")
    return tuple(_as_held(pair, plan, notes) for pair in new)


def _pairs_of(plan: BuildPlan, installed: Installed, notes: Notes) -> tuple[Pair, ...]:
    """Return the pair that an environment is, alone; RequestError where it is none of this wheel's."""
    pair = pair_of_installed(installed, pin_of(installed))
    if installed.cuda != plan.target.cuda:
        raise RequestError(
            f"{installed} is built with CUDA {installed.cuda}, and the wheel is for {plan.target.cuda}",
            hint="build a wheel of its own for that CUDA: attnforge build --universal --torch installed",
        )
    if pair.key in {held.key for held in plan.pairs}:
        raise RequestError(f"the wheel has {pair} already", hint="it can be installed as it is")
    notes.decide("torch", pair.torch, str(installed))
    return (pair,)


def _as_held(pair: Pair, plan: BuildPlan, notes: Notes) -> Pair:
    """Return a pair with the patch that the wheel has of its PyTorch: it has one of each minor, as any build has."""
    patch = next((held.torch for held in plan.pairs if held.torch_minor == pair.torch_minor), pair.torch)
    if patch != pair.torch:
        told = (
            f"the module for {pair} is compiled with PyTorch {patch}, and not {pair.torch}, as others of the wheel are"
        )
        notes.warn("torch", f"{told}: modules load with each patch of a minor")
    return pair.model_copy(update={"torch": patch})


def _recipe(plan: BuildPlan, recipe_file: str) -> tuple[Recipe, Release | None]:
    """Return the recipe of a wheel's plan and its release; RequestError where the plan says otherwise than these.

    What is installed, run and set in the environment comes of the recipe at hand, not of a file from elsewhere.
    """
    found = read_recipe(Path(recipe_file).expanduser()) if recipe_file else find_recipe(plan.package)
    recipe = found.at(plan.version)
    release = recipe.release(plan.version)
    # What the recipe does not know of can't be looked up in it; then its rules are others as well.
    without = tuple(name for name in plan.selection.without if name in recipe.features)
    selection = plan.selection.model_copy(update={"without": without})
    settings = tuple(sorted(settings_of(recipe, release, selection).items()))
    known = (recipe.name, recipe.rules_digest(), recipe.requirements, settings)
    if known != (plan.package, plan.recipe, plan.requirements, plan.settings) or selection != plan.selection:
        raise RequestError(
            f"the recipe for {plan.package} at hand is not the one that the wheel was built with",
            why="its host code and its kernels would be built by different rules",
            hint="the attnforge that built it (provenance.json inside names it), or --recipe FILE for one of your own",
        )
    return recipe, release


def _check_source_pin(plan: BuildPlan, recipe: Recipe, release: Release | None, source: str) -> None:
    """Hold where a wheel says that its source comes from against the recipe: it will be run."""
    pin = plan.source
    if pin.kind == "git":
        known = bool(source) or not pin.url or (recipe.git is not None and pin.url == recipe.git.url)
    elif pin.carrier is not None:
        known = release is not None and release.carriers.get(plan.version) == pin.carrier
    else:
        pinned = release.sha256.get(plan.version) if release else None
        known = pin.kind != "sdist" or pinned in (None, pin.sha256)
    if not known:
        raise RequestError(
            f"the wheel says that it comes from another source than the recipe for {plan.package} names",
            why=f"it names {pin.url or pin.name}, {pin.pinned_by[:30]}; its setup.py would be run",
            hint="if you trust it: --source git+URL" if pin.kind == "git" else "build the wheel anew",
        )


def _located(plan: BuildPlan, recipe: Recipe, source: str) -> Located:
    pin = plan.source
    if pin.kind == "git" and not (source or pin.url):
        raise RequestError(
            f"the wheel was built from a git repository {pin.name} that lies on its builder's machine",
            why="host code is compiled from the very same source",
            hint=f"--source git+file:///FOLDER of a clone that has the commit {pin.commit}",
        )
    if pin.kind == "git":
        address = parse_address(source or f"git+{pin.url}@{pin.commit}")
        return Located(recipe, plan.version, Commit(pin, address))
    if pin.kind == "sdist":
        own = Sdist(pin, plan.package, plan.version)
        return Located(recipe, plan.version, Carried(pin, pin.carrier) if pin.carrier else own)
    if not source:
        raise RequestError(
            f"the wheel was built from the {pin.kind} {pin.name}, which only you have",
            why="host code is compiled from the very same source",
            hint=f"--source PATH of {pin.name}",
        )
    local = open_local(Path(source).expanduser())
    if (local.kind, local.sha256) != (pin.kind, pin.sha256):
        raise RequestError(
            f"{source} is not the source that the wheel was built from",
            why=f"its sha256 is {local.sha256[:16]}…, the wheel's {pin.sha256[:16]}…",
            hint=f"--source PATH of the same {pin.name}",
        )
    return Located(recipe, plan.version, local_source(local, pin))


def _not_universal(wheel: Path, plan: BuildPlan | None) -> RequestError:
    if plan is not None and not plan.is_compiled:
        what = f"{wheel.name} is pure Python: it is for every Python and PyTorch already"
        return RequestError(what, hint="nothing has to be added to it")
    return RequestError(
        f"{wheel.name} is no universal wheel",
        why="only a wheel that was built with --universal holds its kernels apart from modules for Python and PyTorch",
        hint="build one: attnforge build PACKAGE --universal --torch 2.11,2.12 --python 3.10-3.13",
    )


def extend(machine: Machine, extension: Extension, out: Path, observe: Observer = ignore) -> Built:
    """Put a wheel with the further pairs, and its report, into ``out``; the old wheel is left as it is.

    Modules that the old wheel has stay byte for byte. HostError, BuildError or WheelError.
    """
    if (out / extension.plan.wheel).resolve() == extension.wheel.resolve():
        raise RequestError(
            f"the new wheel would take the place of {extension.wheel}",
            why="its label does not tell its pairs",
            hint="--out FOLDER, another one",
        )
    started = time.monotonic()
    check_output(out)
    folder = machine.folders.ensure().builds / extension.plan.slug
    with working_in(folder, observe) as stages:
        source = stages.run("source", extension.plan.source.name, lambda: _source(machine, extension, folder, stages))
        stages.run("look", extension.wheel.name, lambda: _look(extension))
        needed = requirements_of(extension.plan, extension.located, source)
        environments = PairEnvironments(machine, extension.plan.target.cuda, needed, extension.installed)
        site, parts = _make(extension, environments, source, folder, stages)
        inside = vendored(source)
        wheel = stages.run("package", extension.plan.wheel, lambda: _package(extension, parts, inside, folder))
        pairs = extension.pairs
        stages.run("import", f"with {len(pairs)} pairs", lambda: prove(site, parts.universal, wheel, pairs))
        audit = stages.run("audit", wheel.name, lambda: _audit(extension, environments, wheel))
        if audit.exit_code == WheelError.exit_code:
            raise bad_wheel(audit)
        placed = deliver(wheel, out, stages.warn)
        seconds = time.monotonic() - started
        report = write_extension_report(placed, extension.plan, extension.toolchain, audit, parts.summaries, seconds)
        observe(Finished(extension.plan.package, str(placed), str(report), seconds))
        return Built(placed, report, audit, None, seconds)


def _look(extension: Extension) -> None:
    """Audit the wheel that is there: what is wrong with it must not get a new RECORD that says that all is right."""
    report = audit_wheel(extension.wheel, recipe=extension.located.recipe)
    if report.exit_code == WheelError.exit_code:
        raise bad_wheel(report, "nothing is added to it")


def _source(machine: Machine, extension: Extension, folder: Path, stages: Stages) -> Path:
    """Lay the source out once: whether it can be had is told before anything else is begun."""
    plan = extension.plan
    source = lay_out_source(machine, plan, extension.located, folder / "source", stages.warn)
    for warning in check_source(plan, lambda name: text_of(source / name)):
        stages.warn(warning)
    return source


def _make(
    extension: Extension, environments: PairEnvironments, source: Path, folder: Path, stages: Stages
) -> tuple[Site, Parts]:
    machine, plan, request = environments.machine, extension.plan, extension.request
    pin, pairs = extension.toolchain, extension.pairs
    compiler = host_compiler_of(machine, pin)
    provide = lambda: provide_pinned(machine, pin, compiler, extension.request.cuda_mirror, stages.observe)  # noqa: E731
    toolchain = stages.run("toolchain", f"CUDA {pin.cuda}", provide)
    with opened_cache(machine, request, stages.warn) as cache:
        means = Means(request.jobs or machine.host.cpus, memory_budget(request, machine.host), cache)
        tools = (toolchain, compiler)
        site = Site(plan, extension.located, environments, *tools, folder, means, stages.observe, stages.log)
        libraries, held = _libraries(extension, folder), extension.universal
        answers = held.answers if libraries else None
        stages.run("environments", f"of {len(pairs)} pairs", lambda: prepare(site, source, pairs, answers))
        detail = f"for {len(pairs)} pairs of PyTorch and Python"
        return site, stages.run("modules", detail, lambda: add_pairs(site, held, pairs, libraries))


def _libraries(extension: Extension, folder: Path) -> Mapping[str, Library]:
    """Take the libraries out of the wheel. WheelError where one is not there."""
    members = read_members(extension.wheel)
    libraries = {}
    for module in extension.universal.modules:
        if module.library:
            if module.library_path not in members:
                told = f"{extension.wheel.name} has no {module.library_path}"
                raise WheelError(told, hint="build or download it again")
            path = folder / "link" / "library" / module.name / module.library
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(members[module.library_path].data)
            libraries[module.name] = Library(path)
    return libraries


def _package(extension: Extension, parts: Parts, inside: Iterable[Vendored], folder: Path) -> Path:
    place = folder / "extended"
    place.mkdir(exist_ok=True)
    universal = parts.universal.model_copy(update={"pairs": extension.plan.pairs})
    return extend_wheel(extension.wheel, place, extension.plan, universal, parts.built, BUILDER, inside)


def _audit(extension: Extension, environments: PairEnvironments, wheel: Path) -> AuditReport:
    """Audit the wheel, and the new pairs' symbols: the others' were looked at when they were made."""
    plan, recipe = extension.plan, extension.located.recipe
    sites = environments.sites(extension.pairs)
    libraries = [Path(path) for path in extension.installed.libraries] if extension.installed else []
    expected = expected_of(plan, recipe)
    return audit_wheel(wheel, sites=sites, libraries=libraries, recipe=recipe, expected=expected)
