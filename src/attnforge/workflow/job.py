"""What a build works on, and what its stages have made so far: all that a stage gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, TypeVar

from attnforge.model.events import Message, Observer
from attnforge.model.host import Installed
from attnforge.model.plan import BuildPlan, ToolchainPin
from attnforge.model.recipe import Recipe
from attnforge.model.request import Request
from attnforge.model.universal import Pair
from attnforge.resolve.estimate import memory_budget
from attnforge.workflow.extension import Extension
from attnforge.workflow.machine import Machine
from attnforge.workflow.planning import Planned
from attnforge.workflow.sources.kinds import Located

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """What compilers may use: ``slots`` run at once at most, and hold ``budget_bytes`` of memory together."""

    slots: int
    budget_bytes: int

    @classmethod
    def of(cls, machine: Machine, request: Request) -> Limits:
        """Return what a request allows, or what the machine has."""
        return cls(request.jobs or machine.host.cpus, memory_budget(request, machine.host))

    def divided(self, by: int) -> Limits:
        """Return the share of one of ``by`` builds that run at once."""
        return Limits(max(1, self.slots // by), self.budget_bytes // by)


Order = Planned | Extension
"""What is to be made: a planned build, or an extension of a wheel."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is built, where, and who observes it. A job stays the same from the first stage to the last.

    ``toolchain`` is the one that compiles here: for an extension, that may be another one than the plan's. ``folder``
    is the build's own, ``out`` the folder for the wheel. ``started`` is when the verb began (``time.monotonic``, in
    seconds). ``installed`` is the user's environment whose PyTorch is compiled against.

    Of a universal wheel, ``pairs`` are those that this job makes, and ``further`` those of them whose modules need no
    new kernels.
    """

    machine: Machine
    plan: BuildPlan
    located: Located
    request: Request
    toolchain: ToolchainPin
    folder: Path
    out: Path
    observe: Observer
    log: IO[str]
    limits: Limits
    started: float
    installed: Installed | None = None
    pairs: tuple[Pair, ...] = ()
    further: tuple[Pair, ...] = ()

    @classmethod
    def of(
        cls, machine: Machine, order: Order, folder: Path, out: Path, observe: Observer, log: IO[str], started: float
    ) -> Job:
        """Return the job that makes all that an order's plan asks for, by the plan's toolchain."""
        plan = order.plan
        return cls(
            machine=machine,
            plan=plan,
            located=order.located,
            request=order.request,
            toolchain=plan.toolchain,
            folder=folder,
            out=out,
            observe=observe,
            log=log,
            limits=Limits.of(machine, order.request),
            started=started,
            installed=order.installed,
            pairs=plan.pairs,
            further=plan.pairs[1:],
        )

    @property
    def recipe(self) -> Recipe:
        """What is known of the package."""
        return self.located.recipe

    @property
    def generated(self) -> Path:
        """The folder for files that attnforge generates; it is made."""
        folder = self.folder / "generated"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def tell(self, text: str) -> None:
        """Report something that is worth a line."""
        self.observe(Message("info", text))

    def warn(self, text: str) -> None:
        """Report something that does not stop the work."""
        self.observe(Message("warning", text))


@dataclass(frozen=True, slots=True)
class Context:
    """A job, and what stages have made for it. There is one value of each type."""

    job: Job
    made: Mapping[type, Any] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, kind: type[T]) -> T:
        """Return what an earlier stage made. LookupError where none did: then the stages are in the wrong order."""
        found = self.find(kind)
        if found is None:
            raise LookupError(f"no stage has made a {kind.__name__} yet")
        return found

    def find(self, kind: type[T]) -> T | None:
        """Return what an earlier stage made, None where there is none."""
        return self.made.get(kind)

    def having(self, *values: object) -> Context:
        """Return the context with these values, which replace others of the same type."""
        return replace(self, made=MappingProxyType({**self.made, **{type(value): value for value in values}}))
