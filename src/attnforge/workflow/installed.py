"""The environment whose PyTorch a request means: the one that it names, or the active one."""

from __future__ import annotations

from attnforge.model.host import Active, Installed
from attnforge.model.request import Request
from attnforge.resolve.installed import asked_environment, may_default_to_installed, usable, wants_installed
from attnforge.workflow.machine import Machine


def named_environment(machine: Machine, request: Request) -> Active | None:
    """Return the environment of ``--env`` or ``--torch installed``, None where the request has neither.

    RequestError or HostError where there is none, or where its PyTorch can't be built for.
    """
    if not wants_installed(request):
        return None
    active = Active(installed=machine.look_at(request.env)) if request.env else machine.active
    return active.model_copy(update={"installed": asked_environment(active, request)})


def default_environment(machine: Machine, request: Request) -> Active:
    """Return the active environment where the request names no PyTorch, Python, CUDA or target; else nothing.

    An environment that lacks something that a build needs is ignored.
    """
    if not may_default_to_installed(request):
        return Active()
    return usable(machine.active)


def of_environment(request: Request, named: Active | None) -> Request:
    """Return a request with the Python of the environment that it names, and without a version of PyTorch."""
    if named is None or named.installed is None:
        return request
    python = ".".join(named.installed.version.split(".")[:2])
    return request.model_copy(update={"torch": "", "python": python})


def environment_for(machine: Machine, request: Request) -> Installed | None:
    """Return the environment that a request names, None where it names none; see ``named_environment``."""
    named = named_environment(machine, request)
    return named.installed if named else None
