"""The user's environment with which a finished wheel is audited, tried or timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from attnforge.errors import RequestError
from attnforge.model.host import Installed
from attnforge.model.request import INSTALLED
from attnforge.resolve.installed import no_active
from attnforge.wheelfile.embedded import read_plan
from attnforge.wheelfile.metadata import read_metadata, torch_requirements
from attnforge.wheelfile.name import WheelName
from attnforge.workflow.machine import Machine


def environment_beside(
    machine: Machine, wheels: Sequence[Path], python: str, torch: str, tell: Callable[[str], object]
) -> Installed | None:
    """Return the active environment where wheels are to be used with its PyTorch, None where they are not.

    They are with ``torch`` ``installed``, and where neither ``python`` (an environment or interpreter) nor ``torch`` is
    given and all wheels are for that Python and PyTorch. ``tell`` gets a line that says which it is, or why it is not.
    RequestError where both are given, or where no active environment has a PyTorch for CUDA.
    """
    if torch == INSTALLED:
        if python:
            raise RequestError(f"{python} and --torch {INSTALLED} name two environments", hint="give one of them")
        if machine.active.installed is None:
            raise no_active(machine.active)
    elif python or torch:
        return None
    found = machine.active.installed
    if found is None:
        return None
    why = "" if torch == INSTALLED else next(filter(None, (_unsuited(wheel, found) for wheel in wheels)), "")
    tell(f"not with {found}: {why}" if why else f"with {found}")
    return None if why else found


def _unsuited(wheel: Path, found: Installed) -> str:
    """Return why a wheel is not for the Python and PyTorch of an environment, "" where it is."""
    name = WheelName.parse(wheel.name)
    if name is not None and not name.serves(f"cp{found.minor.replace('.', '')}"):
        return f"{wheel.name} is not for Python {found.minor}"
    for asked in torch_requirements(read_metadata(wheel), found.version):
        if not asked.specifier.contains(found.calls_itself, prereleases=True):
            return f"{wheel.name} asks for torch{asked.specifier}"
    plan = read_plan(wheel)
    key = (".".join(found.torch.split("+")[0].split(".")[:2]), found.minor)
    if plan and plan.is_universal and key not in {pair.key for pair in plan.pairs}:
        return f"{wheel.name} has no modules for it"
    return ""
