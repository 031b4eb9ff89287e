"""The toolchain and the host compiler that a plan pins."""

from __future__ import annotations

from attnforge.model.events import Observer, ignore
from attnforge.model.host import HostCompiler
from attnforge.model.plan import ToolchainPin
from attnforge.provision.redist import provide_release
from attnforge.provision.toolchain import Toolchain, provide_toolchain
from attnforge.workflow.machine import Machine


def provide_pinned(
    machine: Machine, pin: ToolchainPin, compiler: HostCompiler, mirror: str = "", observe: Observer = ignore
) -> Toolchain:
    """Return the toolchain that a plan pins; NVIDIA's archives come from ``mirror``, "" for NVIDIA's own server."""
    assert pin.origin != "none"
    if pin.origin == "nvidia":
        return provide_release(pin, mirror, machine.folders, machine.uv, compiler.path, observe)
    homes = [toolkit.home for toolkit in machine.host.toolkits if toolkit.nvcc == pin.nvcc and not toolkit.lacks]
    home = homes[0] if homes else ""
    return provide_toolchain(pin.cuda, pin.origin, home, machine.folders, machine.uv, compiler.path)


def host_compiler_of(machine: Machine, pin: ToolchainPin) -> HostCompiler:
    """Return the host compiler that a plan pins with its toolchain."""
    return next(found for found in machine.host.compilers if f"{found.name} {found.version}" == pin.host_compiler)
