"""Audits wheels, also ones that were not made here."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from attnforge import process
from attnforge.audit.wheel import audit_wheel
from attnforge.errors import HostError, RequestError
from attnforge.knowledge.torch import find_torch
from attnforge.model.audit import AuditReport
from attnforge.model.plan import BuildPlan
from attnforge.model.recipe import Recipe
from attnforge.recipes.catalogue import recipes
from attnforge.workflow.machine import Machine

_WHERE = "import sysconfig; print(sysconfig.get_paths()['purelib'])"


def audit(machine: Machine, wheel: Path, python: str = "", torch: str = "") -> AuditReport:
    """Audit a wheel against the PyTorch of an interpreter, of a version, or the one that the wheel itself names.

    A wheel of ours says in its plan which PyTorch it is for. Where nothing says so, its symbols stay unchecked and
    the report says that.
    """
    site = _site_of(machine, python) if python else _site_for(machine, wheel, torch)
    return audit_wheel(wheel, torch_site=site, recipe=_recipe(wheel))


def audit_against(wheel: Path, site: Path) -> AuditReport:
    """Audit a wheel against the PyTorch in a site-packages folder."""
    return audit_wheel(wheel, torch_site=site, recipe=_recipe(wheel))


def _recipe(wheel: Path) -> Recipe | None:
    try:
        name = parse_wheel_filename(wheel.name)[0]
    except InvalidWheelFilename:
        return None
    return recipes().get(name)


def _site_of(machine: Machine, python: str) -> Path:
    # A bare name is looked up on the user's PATH, which the child does not get.
    program = shutil.which(python, path=machine.environ.get("PATH")) or python
    command = process.Command((program, "-c", _WHERE), Path.cwd(), process.base_environment(machine.environ), 60)
    try:
        outcome = machine.runner(command)
    except OSError as error:
        raise RequestError(f"{python} can't be run", why=str(error), hint="--python PATH of an interpreter") from error
    site = Path(outcome.output.strip().splitlines()[-1]) if outcome.ok and outcome.output.strip() else Path()
    if not (site / "torch").is_dir():
        raise HostError(
            f"{python} has no PyTorch",
            why="the wheel's symbols are held against PyTorch's libraries",
            hint="name an interpreter that has it, or --torch VERSION to have it installed",
        )
    return site


def _site_for(machine: Machine, wheel: Path, torch: str) -> Path | None:
    plan = embedded_plan(wheel)
    wanted = torch or (plan.target.torch if plan else "")
    if not wanted:
        return None
    release = find_torch(wanted)
    cuda = plan.target.cuda if plan and plan.target.torch == release.version else release.index_cuda
    python = _python(wheel, plan, release.pythons)
    return machine.environment(python, release.version, cuda, plan.requirements if plan else ()).site_packages


def _python(wheel: Path, plan: BuildPlan | None, pythons: tuple[str, ...]) -> str:
    if plan:
        return plan.target.python
    tag = wheel.name.removesuffix(".whl").split("-")[-3]
    minor = f"3.{tag.removeprefix('cp3')}" if tag.startswith("cp3") else ""
    return minor if minor in pythons else pythons[-1]


def embedded_plan(wheel: Path) -> BuildPlan | None:
    """Return the plan inside a wheel of ours; None for any other wheel, also for one that is no archive."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".dist-info/attnforge/plan.json")]
            return BuildPlan.model_validate(json.loads(archive.read(names[0]))) if names else None
    except (OSError, zipfile.BadZipFile, ValueError, KeyError):
        return None
