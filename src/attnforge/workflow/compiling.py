"""Runs upstream's build for one Python and one PyTorch, with the engine in ninja's seat."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from attnforge import process
from attnforge.compile.graph.pipeline import passes_for, standard_of
from attnforge.compile.nvcc.prefixes import Prefixes
from attnforge.compile.nvcc.shared import Sharing
from attnforge.compile.reuse.cache import StepCache
from attnforge.compile.reuse.reuse import Reuse
from attnforge.compile.run.cost import CostModel
from attnforge.compile.run.engine import Engine, Watch
from attnforge.compile.run.summary import Summary
from attnforge.compile.run.work import Product
from attnforge.errors import BuildError
from attnforge.model.events import Message, Observer
from attnforge.model.graph import Pass
from attnforge.model.plan import BuildPlan
from attnforge.model.recipe import Recipe
from attnforge.model.sharing import Proof
from attnforge.provision.cxxruntime import shared_runtime
from attnforge.provision.driver import provide_driver_stub
from attnforge.provision.gpus import WITHOUT_NINJA, through_ninja, virtual_gpus, without_pip
from attnforge.recipes.catalogue import find_adapter
from attnforge.recipes.proofs import find_proofs
from attnforge.resolve.estimate import cost_key, priors
from attnforge.workflow.ground import Ground, answers_to, build_environment, builder_of, named_folders
from attnforge.workflow.installers import refuse_installers
from attnforge.workflow.machine import Machine
from attnforge.workflow.outside import generator
from attnforge.workflow.rehearsing import Rehearsing, build_rehearsed
from attnforge.workflow.upstream import build_wheel


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
    ground: Ground
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
    machine, plan, recipe, ground, means = job.machine, job.plan, job.recipe, job.ground, job.means
    generated = job.folder / "generated"
    generated.mkdir(parents=True, exist_ok=True)
    given = answered(machine, plan, recipe, ground, generated)
    if answers is not None and given != frozenset(answers):
        raise other_layout(plan)
    with Engine(
        folder=job.folder,
        slots=means.slots,
        budget_bytes=means.budget_bytes,
        passes=passes_of(plan, recipe, ground, generated, given, left),
        costs=CostModel(machine.folders.costs, priors(plan, recipe)),
        observe=job.observe,
        log=job.log,
        temporary=temporary_folder(machine),
        reuse=Reuse(
            means.cache, Prefixes(named_folders(ground, generated)), Sharing(proofs_of(plan)), whole=job.watch is None
        ),
        watch=job.watch,
    ) as engine:
        job.started(engine)
        refuse_installers(engine.seat_folder)
        _own_temporary(engine.seat_folder).mkdir()
        environment = upstream_environment(machine, plan, recipe, ground, generated, engine.seat_folder, means.slots)
        run = partial(build_wheel, ground.source, ground.environment.python, environment, engine, job.folder, job.log)
        run = partial(run, told=lambda output: _say_what_changed(output, job.observe))
        rehearsing = job.rehearsing
        wheel = build_rehearsed(engine, ground.source, run, rehearsing, job.observe) if rehearsing else run()
        return Compiled(wheel, engine.summary, engine.products, given)


def proofs_of(plan: BuildPlan) -> tuple[Proof, ...]:
    """Return the proofs that a plan names; none where it was made with others."""
    wanted = {one.proof for one in plan.shared}
    return tuple(proof for proof in find_proofs(plan.package, plan.toolchain.nvcc) if proof.digest in wanted)


def passes_of(
    plan: BuildPlan,
    recipe: Recipe,
    ground: Ground,
    generated: Path,
    answers: Collection[str],
    left: Collection[str] = (),
) -> tuple[Pass, ...]:
    """Return what a build does to upstream's graphs; files of ours go into ``generated``."""
    own = find_adapter(recipe).passes(plan, recipe, str(generated), answers)
    prefixes = named_folders(ground, generated)
    return passes_for(plan, recipe, own, lambda what: cost_key(plan, what), prefixes, str(generated), left)


def upstream_environment(
    machine: Machine, plan: BuildPlan, recipe: Recipe, ground: Ground, generated: Path, seat: Path, slots: int
) -> dict[str, str]:
    """Return the environment of upstream's build, with the driver and the GPUs that it asks for."""
    stubs, options = link_folder(machine, ground, generated)
    environment = build_environment(plan, ground, seat, slots, machine.environ)
    return {
        **environment,
        "TMPDIR": str(_own_temporary(seat)),
        "LIBRARY_PATH": str(stubs),
        **with_linker_options(environment, options),
        **without_pip(),
        **(virtual_gpus(plan.target.capabilities) if recipe.asks_for_gpus else {}),
        **({} if recipe.outside else {**through_ninja(), **generator(builder_of(ground.source))}),
    }


def with_linker_options(environment: Mapping[str, str], options: Sequence[str]) -> dict[str, str]:
    """Return LDFLAGS with options before those that a recipe sets; setuptools and CMake read it. Nothing for none.

    A compiler looks into its own folders before those of LIBRARY_PATH, and after those of its command line.
    """
    if not options:
        return {}
    return {"LDFLAGS": " ".join(filter(None, (shlex.join(options), environment.get("LDFLAGS", ""))))}


def _say_what_changed(output: str, observe: Observer) -> None:
    if WITHOUT_NINJA in output:
        text = "setup.py says use_ninja=False; it was compiled by ninja all the same, within the limits of this build"
        observe(Message("info", text))


def _own_temporary(seat: Path) -> Path:
    """Return where upstream's build has its temporary files: what goes with the seat, however the build ends."""
    return seat.with_name("upstream")


def answered(machine: Machine, plan: BuildPlan, recipe: Recipe, ground: Ground, generated: Path) -> frozenset[str]:
    """Return which of the recipe's questions the PyTorch of a build answers with yes."""
    return answers_to(find_adapter(recipe).questions(), ground, generated, machine, standard_of(plan))


def link_folder(machine: Machine, ground: Ground, generated: Path) -> tuple[Path, tuple[str, ...]]:
    """Return a folder with what modules link against and never hold, and options for the linker besides (mostly none).

    It has a stand-in for the driver's library and, where the compiler lacks it, a name for the shared C++ library.
    """
    environ = process.base_environment(machine.environ)
    folder, compiler = generated / "stubs", ground.compiler.path
    provide_driver_stub(ground.toolchain.home, compiler, folder, machine.runner, environ)
    return folder, shared_runtime(compiler, folder, machine.runner, environ)


def temporary_folder(machine: Machine) -> Path:
    """Return where compilers' temporary files go."""
    return Path(machine.environ.get("TMPDIR") or tempfile.gettempdir())


def other_layout(plan: BuildPlan) -> BuildError:
    """Return the error for a PyTorch that lays out what crosses to the kernels in another way than the others."""
    target = plan.target
    return BuildError(
        f"PyTorch {target.torch} can't share kernels with the others of this wheel",
        why="it lays out what is handed to the kernels (the state of its random number generator) in another way",
        hint=f"a wheel of its own: attnforge build {plan.package}=={plan.version} --torch {target.torch}",
    )
