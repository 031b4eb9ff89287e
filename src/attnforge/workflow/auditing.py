"""Audits wheels, also ones that were not made here."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import groupby
from pathlib import Path

from attnforge import process
from attnforge.audit.owners import check_owners, owner_of_wheel, owners_in
from attnforge.audit.wheel import audit_wheel
from attnforge.errors import HostError, RequestError
from attnforge.host.active import interpreter_of
from attnforge.knowledge.torch import TorchRelease
from attnforge.model.audit import AuditReport
from attnforge.model.host import Installed
from attnforge.model.plan import BuildPlan
from attnforge.model.recipe import Recipe
from attnforge.model.universal import Pair
from attnforge.recipes.catalogue import recipes
from attnforge.wheelfile.embedded import read_plan
from attnforge.wheelfile.name import WheelName
from attnforge.workflow.beside import environment_beside
from attnforge.workflow.machine import Machine
from attnforge.workflow.torchindex import release_for

_WHERE = """\
import importlib.util, pathlib
found = importlib.util.find_spec("torch")
print(pathlib.Path(found.origin).parent.parent if found and found.origin else "")
"""


def audit(
    machine: Machine,
    wheel: Path,
    python: str = "",
    torch: str = "",
    beside: Iterable[Path] = (),
    tell: Callable[[str], object] = str,
) -> AuditReport:
    """Audit a wheel against the PyTorch of an interpreter or environment, of a version, or the one that it is for.

    ``torch`` may be ``installed``. Where neither is given, the active environment counts if the wheel is for its
    PyTorch. Else a wheel of ours says in its plan which PyTorch it is for. A universal one is checked against each of
    its own. Where nothing says so, its symbols stay unchecked and the report says that. ``tell`` gets a line on which
    environment was taken or passed over. ``beside`` are wheels that it is to be installed with: the report names
    files that it and one of these own, or a distribution in the environment.
    """
    installed = environment_beside(machine, [wheel], python, torch, tell)
    report = _audit(machine, wheel, python, torch, installed)
    owner = owner_of_wheel(wheel)
    if owner is None:
        return report
    others = [other for path in beside if path != wheel and (other := owner_of_wheel(path)) is not None]
    site = Path(installed.folder) if installed else _site_of(machine, python) if python else None
    there = owners_in(site) if site else ()
    shared = tuple(check_owners(owner, (*others, *there)))
    return report.model_copy(update={"findings": (*report.findings, *shared)}) if shared else report


def _audit(machine: Machine, wheel: Path, python: str, torch: str, installed: Installed | None) -> AuditReport:
    plan, recipe = read_plan(wheel), _recipe(wheel)
    if installed:
        return audit_against(wheel, Path(installed.folder), installed.libraries)
    if python:
        return audit_wheel(wheel, torch_site=_site_of(machine, python), recipe=recipe)
    if plan and plan.is_universal:
        sites, chosen = _sites_for(machine, plan, torch)
        return audit_wheel(wheel, sites=sites, torch=chosen, recipe=recipe)
    return audit_wheel(wheel, torch_site=_site_for(machine, wheel, plan, torch), recipe=recipe)


def audit_against(wheel: Path, site: Path, libraries: Sequence[str] = ()) -> AuditReport:
    """Audit a wheel against the PyTorch in a site-packages folder: of a universal one, the modules for it.

    ``libraries`` are those that this PyTorch has from elsewhere.
    """
    return audit_wheel(wheel, torch_site=site, libraries=[Path(one) for one in libraries], recipe=_recipe(wheel))


def _recipe(wheel: Path) -> Recipe | None:
    name = WheelName.parse(wheel.name)
    return recipes().get(name.project) if name else None


def _site_of(machine: Machine, python: str) -> Path:
    # A bare name is looked up on the user's PATH, which the child does not get.
    program = interpreter_of(python) or shutil.which(python, path=machine.environ.get("PATH"))
    command = process.Command(
        (str(program or python), "-B", "-c", _WHERE), Path.cwd(), process.base_environment(machine.environ), 60
    )
    try:
        outcome = machine.runner(command)
    except OSError as error:
        raise RequestError(f"{python} can't be run", why=str(error), hint="--python PATH of an interpreter") from error
    site = Path(outcome.output.strip().splitlines()[-1]) if outcome.ok and outcome.output.strip() else Path()
    if not (site / "torch").is_dir():
        raise HostError(
            f"{python} has no PyTorch",
            why="the wheel's symbols are checked against PyTorch's libraries",
            hint="name an interpreter that has it, or --torch VERSION to have it installed",
        )
    return site


def _sites_for(machine: Machine, plan: BuildPlan, torch: str) -> tuple[list[tuple[Pair, Path]], str]:
    """Return a site-packages folder for each pair of a universal wheel, and the PyTorch that was chosen, or "".

    Pairs of one PyTorch minor share that of their first Python: what its libraries provide is the same for all.
    """
    chosen = release_for(torch, plan, machine.settings).version if torch else ""
    minor = ".".join(chosen.split(".")[:2])
    sites = []
    for torch_minor, pairs in groupby(plan.pairs, lambda pair: pair.torch_minor):
        if minor in ("", torch_minor):
            alike = list(pairs)
            release = release_for(chosen or alike[0].torch, plan, machine.settings)
            cuda = cuda_of(plan, release)
            site = machine.environment(alike[0].python, release.version, cuda, plan.requirements).site_packages
            sites += [(pair, site) for pair in alike]
    return sites, chosen


def cuda_of(plan: BuildPlan | None, release: TorchRelease) -> str:
    """Return the CUDA of the PyTorch that a wheel is tried with: its plan's, where that release is built with it."""
    if plan and (plan.target.torch == release.version or (plan.is_universal and plan.target.cuda in release.cuda)):
        return plan.target.cuda
    return release.index_cuda


def _site_for(machine: Machine, wheel: Path, plan: BuildPlan | None, torch: str) -> Path | None:
    wanted = torch or (plan.target.torch if plan else "")
    name = WheelName.parse(wheel.name)
    of_own = plan is not None and plan.installed is not None and not plan.installed.official
    if not wanted or (of_own and not torch) or (name is not None and name.is_foreign):
        return None
    release = release_for(wanted, plan, machine.settings)
    there = [".".join(found.version.split(".")[:2]) for found in machine.host.interpreters]
    python, cuda = python_for(name, plan, _offered(release), there), cuda_of(plan, release)
    return machine.environment(python, release.version, cuda, plan.requirements if plan else ()).site_packages


def _offered(release: TorchRelease) -> tuple[str, ...]:
    """Return the Pythons of a PyTorch; those with the global lock last, as the last that fits is taken."""
    return (*release.free_threaded, *release.pythons)


def python_for(name: WheelName | None, plan: BuildPlan | None, offered: Sequence[str], there: Collection[str]) -> str:
    """Return the Python (``3.12``) whose environment a wheel is audited in.

    ``offered`` are those that the PyTorch is built for, in order, and ``there`` those of this machine. A wheel for one
    Python is audited with it. PyTorch's libraries are the same for all: any that the wheel is for serves, best one
    that is there.
    """
    exact = plan.target.python if plan else ""
    fitting = [python for python in offered if name is None or name.serves(f"cp{python.replace('.', '')}")]
    usable = [exact] if exact in fitting else fitting or list(offered)
    mine = [python for python in usable if python in there]
    others = [python for python in fitting if python in there]
    return (mine or others or usable)[-1]
