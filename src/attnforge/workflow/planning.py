"""From a request to a plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from packaging.utils import canonicalize_name

from attnforge.compile.run.cost import CostModel
from attnforge.knowledge.targets import find_target
from attnforge.model.host import Active, Installed
from attnforge.model.plan import BuildPlan, Estimate, PlanWarning, Resolution
from attnforge.model.request import Request
from attnforge.package.wheel import torches_of
from attnforge.recipes.catalogue import find_recipe
from attnforge.recipes.proofs import find_proofs
from attnforge.resolve.resolver import resolve, with_target
from attnforge.workflow.before import made_before
from attnforge.workflow.early import check_early, check_place, check_versions
from attnforge.workflow.fetching import fetches_of
from attnforge.workflow.installed import default_environment, named_environment, of_environment
from attnforge.workflow.machine import Machine
from attnforge.workflow.redist import asked_release
from attnforge.workflow.sources.git import recorded_commit
from attnforge.workflow.sources.inspection import Inspected, inspect_source
from attnforge.workflow.sources.kinds import Located
from attnforge.workflow.sources.locating import locate, named_in
from attnforge.workflow.sources.words import name_and_version
from attnforge.workflow.torchindex import read_torches
from attnforge.workflow.uptodate import finished_wheel


@dataclass(frozen=True, slots=True)
class Planned:
    """A resolution, and what else a build of it needs.

    ``installed`` is the user's environment whose PyTorch is compiled against, None where the build makes one.
    """

    request: Request
    located: Located
    resolution: Resolution
    installed: Installed | None = None

    @property
    def plan(self) -> BuildPlan:
        """The plan."""
        return self.resolution.plan


def plan(machine: Machine, request: Request) -> Planned:
    """Resolve a request on this machine. Reads the package index or a git server only where the recipe pins nothing."""
    check_place(request.package.partition("==")[0])
    check_place(request.source)
    # A path or a tag has its own version; a name may get one from the named target.
    name = named_in(request)
    request = with_target(request, name)
    check_early(request, machine.environ)
    named = named_environment(machine, request)
    wanted = of_environment(request, named)
    read = read_torches(wanted.torch, machine.settings)
    check_versions(wanted, read)
    located = locate(machine, wanted)
    located = _warned(located, _departures(request, name, located))
    inspected = inspect_source(machine, located)
    active = (named or default_environment(machine, request)) if _is_compiled(located, inspected) else Active()
    resolution = resolve(
        wanted,
        located.recipe,
        located.version,
        located.pin,
        machine.host,
        expect=CostModel(machine.folders.costs).expect,
        made=partial(made_before, machine.folders),
        pure=inspected.why_pure,
        fetched=None if inspected.why_pure else asked_release(machine, request),
        proofs=partial(find_proofs, located.recipe.name),
        active=active,
        read=read,
    )
    located = _warned(located, inspected.about(torches_of(resolution.plan)))
    resolution = _with_found(_with_what_is_left(resolution, machine, request), located)
    return Planned(request, located, resolution, active.installed)


def _warned(located: Located, warnings: Iterable[PlanWarning]) -> Located:
    return replace(located, warnings=(*located.warnings, *warnings))


def _departures(request: Request, name: str, located: Located) -> Iterator[PlanWarning]:
    """Warn of a package that differs from the named target's: another version, commit or source."""
    packages = find_target(request.target).packages if request.target else {}
    meant = packages.get(canonicalize_name(name or located.recipe.name))
    if meant is None:
        return
    package, version = name_and_version(meant.package)
    commit = recorded_commit(find_recipe(package), version) if meant.source == "git" else ""
    if (located.recipe.name, located.version, located.pin.commit) != (package, version, commit):
        pin = located.pin
        of = f"commit {pin.commit[:12]} of {pin.name}" if pin.commit else f"the {pin.kind} {pin.name}"
        yield PlanWarning(
            subject="target",
            message=f"the target {request.target} has {meant.package}{f' of commit {commit[:12]}' if commit else ''}, "
            f"this is {located.recipe.name}=={located.version} of {of}",
            hint=f"for the target's: attnforge plan {name or located.recipe.name} --target {request.target}",
        )


def _is_compiled(located: Located, inspected: Inspected) -> bool:
    """Say whether a package may compile something. It is asked before the package is resolved."""
    release = located.recipe.release(located.version)
    return not inspected.why_pure and (release is None or release.compiled)


def _with_what_is_left(resolution: Resolution, machine: Machine, request: Request) -> Resolution:
    """Add what the build downloads. The estimate is zero where an earlier build finished the wheel."""
    plan = resolution.plan
    if not plan.is_compiled or finished_wheel(machine.folders, plan) is None:
        fetches = fetches_of(plan, machine.folders, request.cuda_mirror)
        return resolution.model_copy(update={"fetches": fetches})
    nothing = Estimate(seconds=0, peak_bytes=0, slots=resolution.estimate.slots)
    return resolution.model_copy(update={"estimate": nothing})


def _with_found(resolution: Resolution, located: Located) -> Resolution:
    """Add the decisions and warnings of finding the source in front of those of resolving it."""
    return resolution.model_copy(
        update={
            "decisions": (*located.decisions, *resolution.decisions),
            "warnings": (*located.warnings, *resolution.warnings),
        }
    )
