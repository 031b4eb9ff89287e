"""Runs upstream's build for one Python and one PyTorch, with the engine in ninja's seat."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from attnforge.compile.graph.pipeline import passes_for
from attnforge.compile.nvcc.prefixes import Prefixes
from attnforge.compile.reuse.cache import StepCache
from attnforge.compile.reuse.reuse import Reuse
from attnforge.compile.reuse.shared import Sharing
from attnforge.compile.run.cost import CostModel
from attnforge.compile.run.engine import Engine, Watch
from attnforge.compile.run.summary import Summary
from attnforge.compile.run.work import Product
from attnforge.model.events import Message, Observer
from attnforge.model.graph import Pass
from attnforge.model.plan import BuildPlan
from attnforge.model.recipe import Recipe
from attnforge.model.sharing import Proof
from attnforge.provision.gpus import WITHOUT_NINJA
from attnforge.recipes.catalogue import find_adapter
from attnforge.recipes.proofs import find_proofs
from attnforge.resolve.estimate import cost_key, priors
from attnforge.workflow.answers import answered, other_layout
from attnforge.workflow.inputs import Inputs, named_folders
from attnforge.workflow.installers import refuse_installers
from attnforge.workflow.machine import Machine
from attnforge.workflow.rehearsing import Rehearsing, build_rehearsed
from attnforge.workflow.upstream import build_wheel
from attnforge.workflow.variables import own_temporary, upstream_environment


@dataclass(frozen=True, slots=True)
class Means:
    """What compiles may use: ``slots`` at once, ``budget_bytes`` of memory together, and the cache across plans."""

    slots: int
    budget_bytes: int
    cache: StepCache


@dataclass(frozen=True, slots=True)
class Compiled:
    """What upstream's build made: its wheel, its objects, and what the PyTorch of the build answered."""

    wheel: Path
    summary: Summary
    products: tuple[Product, ...]
    answers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Job:
    """One run of upstream's build: what for, on what, and where. ``started`` is told of the engine.

    ``rehearsing`` is there where kernels may be compiled for long (``workflow.rehearsing``). ``watch`` is shown each
    step that has ended; nothing is skipped then because an object is cached.
    """

    machine: Machine
    plan: BuildPlan
    recipe: Recipe
    inputs: Inputs
    folder: Path
    means: Means
    observe: Observer
    log: IO[str]
    started: Callable[[Engine], object] = lambda engine: None
    rehearsing: Rehearsing | None = None
    watch: Watch | None = None


def compile_upstream(job: Job, left: Collection[str] = (), answers: Collection[str] | None = None) -> Compiled:
    """Run upstream's build. HostError, BuildError or the engine's own error where it fails.

    The units of the sources in ``left`` (absolute paths) are left out: their objects are at hand elsewhere. These were
    made for PyTorch versions that give the same ``answers``; BuildError where this one gives others.
    """
    machine, plan, recipe, inputs, means = job.machine, job.plan, job.recipe, job.inputs, job.means
    generated = job.folder / "generated"
    generated.mkdir(parents=True, exist_ok=True)
    given = answered(machine, plan, recipe, inputs, generated)
    if answers is not None and given != frozenset(answers):
        raise other_layout(plan)
    with Engine(
        folder=job.folder,
        slots=means.slots,
        budget_bytes=means.budget_bytes,
        passes=passes_of(plan, recipe, inputs, generated, given, left),
        costs=CostModel(machine.folders.costs, priors(plan, recipe)),
        observe=job.observe,
        log=job.log,
        temporary=temporary_folder(machine),
        reuse=Reuse(
            means.cache, Prefixes(named_folders(inputs, generated)), Sharing(proofs_of(plan)), whole=job.watch is None
        ),
        watch=job.watch,
    ) as engine:
        job.started(engine)
        refuse_installers(engine.seat_folder)
        own_temporary(engine.seat_folder).mkdir()
        environment = upstream_environment(machine, plan, recipe, inputs, generated, engine.seat_folder, means.slots)
        run = partial(build_wheel, inputs.source, inputs.environment.python, environment, engine, job.folder, job.log)
        run = partial(run, told=lambda output: _say_what_changed(output, job.observe))
        rehearsing = job.rehearsing
        wheel = build_rehearsed(engine, inputs.source, run, rehearsing, job.observe) if rehearsing else run()
        return Compiled(wheel, engine.summary, engine.products, given)


def proofs_of(plan: BuildPlan) -> tuple[Proof, ...]:
    """Return the proofs that a plan names; none where it was made with others."""
    wanted = {one.proof for one in plan.shared}
    return tuple(proof for proof in find_proofs(plan.package, plan.toolchain.nvcc) if proof.digest in wanted)


def passes_of(
    plan: BuildPlan,
    recipe: Recipe,
    inputs: Inputs,
    generated: Path,
    answers: Collection[str],
    left: Collection[str] = (),
) -> tuple[Pass, ...]:
    """Return what a build does to upstream's graphs; files of ours go into ``generated``."""
    own = find_adapter(recipe).passes(plan, recipe, str(generated), answers)
    prefixes = named_folders(inputs, generated)
    return passes_for(plan, recipe, own, lambda what: cost_key(plan, what), prefixes, str(generated), left)


def _say_what_changed(output: str, observe: Observer) -> None:
    if WITHOUT_NINJA in output:
        text = "setup.py says use_ninja=False; it was compiled by ninja all the same, within the limits of this build"
        observe(Message("info", text))


def temporary_folder(machine: Machine) -> Path:
    """Return where compilers' temporary files go."""
    return Path(machine.environ.get("TMPDIR") or tempfile.gettempdir())
