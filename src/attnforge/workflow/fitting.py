"""Which Python and which PyTorch a wheel is tried with: from its name, its plan and its metadata."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import SpecifierSet

from attnforge.audit.universal import told_pairs
from attnforge.errors import RequestError, WheelError
from attnforge.knowledge.torch import default_torch, find_torch, is_listed
from attnforge.model.plan import BuildPlan
from attnforge.model.universal import Pair
from attnforge.model.versions import as_version
from attnforge.wheelfile.archive import no_wheel
from attnforge.wheelfile.embedded import read_plan
from attnforge.wheelfile.metadata import read_metadata, torch_requirements
from attnforge.wheelfile.name import WheelName
from attnforge.workflow.auditing import cuda_of
from attnforge.workflow.machine import Machine
from attnforge.workflow.torchindex import release_for


@dataclass(frozen=True, slots=True)
class WheelFile:
    """A wheel and what its name says: ``package`` (canonical), ``version`` with its label, the ``python`` tags."""

    path: Path
    package: str
    version: str
    pythons: tuple[str, ...]


def read_name(wheel: Path) -> WheelFile:
    """Read a wheel's name. RequestError where there is no such file, WheelError where that is no wheel's name."""
    if not wheel.is_file():
        raise no_wheel(wheel)
    name = WheelName.parse(wheel.name)
    if name is None:
        why = "a wheel's name is NAME-VERSION-PYTHON-ABI-PLATFORM.whl"
        raise WheelError(f"{wheel.name} is no wheel's name", why=why, hint="give it back its name")
    return WheelFile(wheel.resolve(), name.project, str(name.version), name.interpreters)


def wanted(machine: Machine, wheel: WheelFile, torch: str) -> tuple[str, str, tuple[str, ...]]:
    """Return the Python, the requirement of torch, and uv's options for where it comes from.

    ``torch`` "" is the one that the wheel's plan or metadata asks for. RequestError where there is none.
    """
    plan = read_plan(wheel.path)
    if plan and plan.is_universal:
        pair = chosen_pair(wheel, plan, torch)
        python, version = pair.python, torch or pair.torch
    else:
        python, version = _python_of(wheel, plan), torch or (plan.target.torch if plan else "")
    if not version:
        return python, _torch_requirement(wheel.path, python), ()
    if plan and plan.installed and not plan.installed.official and not torch:
        raise RequestError(
            f"{wheel.path.name} is for PyTorch {version}, which is no official release",
            why="no index has that build, so no environment can be made with it",
            hint="activate the environment that has it, or name it with --env PATH",
        )
    release = release_for(version, plan, machine.settings)
    cuda = cuda_of(plan, release)
    backend = () if cuda == release.index_cuda else ("--torch-backend", "cu" + cuda.replace(".", ""))
    return python, f"torch=={release.version}", backend


def chosen_pair(wheel: WheelFile, plan: BuildPlan, torch: str = "") -> Pair:
    """Return the pair that a universal wheel is tried as: of ``torch``, else of the last PyTorch that it is for.

    Of its Pythons it is the one that runs attnforge, else the newest. RequestError where the wheel has no such pair.
    """
    torch = torch or plan.pairs[-1].torch
    known = find_torch(torch).version if is_listed(torch) or as_version(torch) is None else torch
    minor = ".".join(known.split("+")[0].split(".")[:2])
    held = [pair for pair in plan.pairs if pair.torch_minor == minor]
    if not held:
        raise RequestError(
            f"{wheel.path.name} has no modules for PyTorch {minor}",
            why=f"it has those for {told_pairs(pair.key for pair in plan.pairs)}",
            hint=f"add them: attnforge extend {wheel.path.name} --torch {minor}",
        )
    return next((pair for pair in held if pair.python == _ours()), held[-1])


def _ours() -> str:
    """Return the Python that runs this: ``3.12``."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _python_of(wheel: WheelFile, plan: BuildPlan | None) -> str:
    """Return the Python to try it with: the plan's, that of its tag, or for a wheel for any the one that runs this."""
    if plan and plan.target.python_tag in wheel.pythons:
        return plan.target.python
    exact = [tag.removeprefix("cp3") for tag in wheel.pythons if tag.startswith("cp3")]
    ours = _ours()
    if not exact or "abi3" in wheel.path.name:
        return ours
    return ours if ours.removeprefix("3.") in exact else f"3.{exact[-1]}"


def _torch_requirement(wheel: Path, python: str) -> str:
    """Return the PyTorch that attnforge takes by default, unless the wheel's metadata asks for another there."""
    default = default_torch().version
    wanted = SpecifierSet()
    for asked in torch_requirements(read_metadata(wheel), python):
        wanted &= asked.specifier
    return f"torch=={default}" if wanted.contains(default) else f"torch{wanted}"
