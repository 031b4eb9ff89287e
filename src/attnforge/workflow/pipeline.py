"""The stages of a build, in order, and which of them each kind of wheel takes.

    locate, plan    planning.plan: a request becomes a plan. Those two stages need no folder, and `plan` ends there.
    provide         SOURCE, ENVIRONMENT, TOOLCHAIN, and for a universal wheel ENVIRONMENTS
    compile         COMPILE or COMPILE_PURE: upstream's own build, whose compiles run here
    link            LIBRARY and MODULES: for a universal wheel; upstream's build links any other
    package         PACKAGE and its variants
    prove           IMPORT: each module of a universal wheel is loaded
    audit           AUDIT: what is in the wheel, and what is wrong with it
    deliver         DELIVER: into the folder that the user named
    report          REPORT: beside the wheel

A stage is a function from what earlier stages made to what it makes (``job.Context``, ``artifacts``). Checks stand
between the stages as stages without events.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace

from attnforge.model.audit import AuditReport
from attnforge.model.plan import BuildPlan
from attnforge.workflow import finishing, making, packing, providing, pure, verdict
from attnforge.workflow.artifacts import Packed
from attnforge.workflow.job import Context
from attnforge.workflow.results import Built, opened_cache
from attnforge.workflow.stages import Stage, follow
from attnforge.workflow.universal import held, library, linking, loading, modules

# --- the stages

SOURCE = Stage("source", providing.provide_source, lambda so_far: so_far.job.plan.source.name)
SOURCE_WARNINGS = Stage("source warnings", providing.warn_of_source)
REQUIREMENTS = Stage("requirements", providing.find_requirements)
ENVIRONMENT = Stage("environment", providing.provide_environment, lambda so_far: python_and_torch(so_far.job.plan))
TOOLCHAIN = Stage("toolchain", providing.provide_toolchain, lambda so_far: f"CUDA {so_far.job.toolchain.cuda}")
ENVIRONMENTS = Stage("environments", linking.prepare_pairs, lambda so_far: f"of {len(so_far.job.pairs)} pairs")

SPACE = Stage("space", making.check_space_left)
COMPILED_BEFORE = Stage("compiled before", making.find_compiled)
COMPILE = Stage("compile", making.compile_kernels, lambda so_far: so_far.job.plan.package)
COMPILE_PURE = Stage("compile", pure.build_pure, lambda _: "nothing: pure Python")
ORIGIN = Stage("origin", making.check_origin)

LIBRARY = Stage("library", library.link_first, lambda _: "the kernels")
MODULES = Stage(
    "modules",
    modules.add_modules,
    lambda so_far: f"for {len(so_far.job.further)} further pairs of PyTorch and Python",
)

PACKAGE = Stage("package", packing.package_compiled, lambda so_far: so_far.job.plan.wheel)
PACKAGE_PURE = replace(PACKAGE, work=packing.package_pure)
PACKAGE_PARTS = replace(PACKAGE, work=packing.package_parts)
PACKAGE_EXTENDED = replace(PACKAGE, work=held.package_extended)

IMPORT = Stage("import", loading.load_modules, lambda so_far: f"with {len(so_far.job.pairs)} pairs")
KEEP = Stage("keep", packing.keep_proven)
AUDIT = Stage("audit", verdict.audit_packed, lambda so_far: so_far.of(Packed).wheel.name)
DISCARD_BAD = Stage("discard a bad wheel", verdict.discard_bad)
REFUSE_BAD = Stage("refuse a bad wheel", verdict.refuse_bad)
DELIVER = Stage("deliver", finishing.deliver_packed)
REPORT = Stage("report", finishing.report_build)
REPORT_EXTENSION = replace(REPORT, work=finishing.report_extension)

# Of an extension only: the wheel that is there.
LOOK = Stage("look", held.audit_held, lambda so_far: so_far.of(held.HeldWheel).wheel.name)
TAKE_LIBRARIES = Stage("take libraries", held.take_libraries)


def python_and_torch(plan: BuildPlan) -> str:
    """Return what the environment of a build has, for people."""
    return f"Python {plan.target.python}, torch {plan.target.torch or 'none'}"


# --- the kinds of wheels


@dataclass(frozen=True, slots=True)
class Kind:
    """The stages of one kind of wheel.

    ``make`` is left out where an earlier build finished the wheel; all else is done for every wheel. ``compiles`` says
    whether ``make`` uses the cache of compile results.
    """

    provide: tuple[Stage, ...]
    make: tuple[Stage, ...]
    finish: tuple[Stage, ...]
    audit: Stage = AUDIT
    compiles: bool = True

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages, in order."""
        return (*self.provide, *self.make, self.audit, *self.finish)


_PROVIDE = (SOURCE, SOURCE_WARNINGS, REQUIREMENTS, ENVIRONMENT)
_FINISH = (DISCARD_BAD, DELIVER, REPORT)

PURE = Kind(provide=_PROVIDE, make=(COMPILE_PURE, PACKAGE_PURE), finish=_FINISH, compiles=False)
"""A pure Python package: one wheel for every Python and PyTorch."""

PLAIN = Kind(
    provide=_PROVIDE,
    make=(TOOLCHAIN, COMPILED_BEFORE, SPACE, COMPILE, ORIGIN, PACKAGE),
    finish=_FINISH,
)
"""A wheel for one Python and one PyTorch."""

UNIVERSAL = Kind(
    provide=_PROVIDE,
    make=(TOOLCHAIN, SPACE, ENVIRONMENTS, COMPILE, LIBRARY, MODULES, PACKAGE_PARTS, IMPORT, KEEP),
    finish=_FINISH,
)
"""A wheel for several pairs of PyTorch and Python."""

UNIVERSAL_OF_ONE_PAIR = replace(UNIVERSAL, make=tuple(stage for stage in UNIVERSAL.make if stage is not MODULES))
"""The same before further pairs are added to it."""

EXTENSION = Kind(
    provide=(SOURCE, SOURCE_WARNINGS, LOOK, REQUIREMENTS),
    make=(TOOLCHAIN, TAKE_LIBRARIES, ENVIRONMENTS, MODULES, PACKAGE_EXTENDED, IMPORT),
    finish=(REFUSE_BAD, DELIVER, REPORT_EXTENSION),
)
"""A universal wheel with more pairs than the one that it is made from."""


def kind_of(plan: BuildPlan) -> Kind:
    """Return the kind of wheel that a build of a plan makes."""
    if not plan.is_compiled:
        return PURE
    if not plan.is_universal:
        return PLAIN
    return UNIVERSAL if len(plan.pairs) > 1 else UNIVERSAL_OF_ONE_PAIR


# --- the run


def run(kind: Kind, context: Context) -> Built:
    """Run the stages of a kind of wheel and return what was built.

    Where the context has a wheel, an earlier build finished it: it is audited and delivered. Where the audit finds it
    bad, the wheel is made again. Raises what a stage raises: HostError, BuildError, WheelError.
    """
    provided = follow(kind.provide, context)
    earlier = provided.find(Packed)
    if earlier is not None:
        audited = kind.audit.run(provided)
        if not verdict.is_bad(audited.of(AuditReport)):
            return follow(kind.finish, audited).of(Built)
        provided.job.warn(f"the audit finds the wheel of an earlier build bad ({earlier.wheel.name}); it is made again")
    return follow((kind.audit, *kind.finish), _made(kind, provided)).of(Built)


def _made(kind: Kind, provided: Context) -> Context:
    job = provided.job
    with opened_cache(job.machine, job.request, job.warn) if kind.compiles else nullcontext() as cache:
        return follow(kind.make, provided if cache is None else provided.having(cache))
