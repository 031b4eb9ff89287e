"""What upstream's build is given: source, toolchain, environment and compiler."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from attnforge import process
from attnforge.model.events import Observer, ignore
from attnforge.model.host import HostCompiler
from attnforge.model.plan import ToolchainPin
from attnforge.provision.cxxruntime import shared_runtime
from attnforge.provision.driver import provide_driver_stub
from attnforge.provision.environment import BuildEnvironment
from attnforge.provision.redist import provide_release
from attnforge.provision.toolchain import Toolchain, provide_toolchain
from attnforge.workflow.machine import Machine


@dataclass(frozen=True, slots=True)
class Inputs:
    """What upstream's build reads and runs."""

    source: Path
    toolchain: Toolchain
    environment: BuildEnvironment
    compiler: HostCompiler


def named_folders(inputs: Inputs, generated: Path) -> dict[str, str]:
    """Return the folders that differ from machine to machine, with the names that stand for them."""
    interpreter = inputs.environment.python
    named = {
        inputs.source: "source",
        generated: "generated",
        inputs.environment.site_packages: "site-packages",
        interpreter.parent.parent: "environment",
        inputs.toolchain.home: "cuda",
        inputs.toolchain.home.resolve(): "cuda",
    }
    python = interpreter.resolve().parent.parent
    if python not in (Path("/"), Path("/usr"), Path("/usr/local")):
        named[python] = "python"
    return {str(folder): name for folder, name in named.items()}


def link_folder(machine: Machine, inputs: Inputs, generated: Path) -> tuple[Path, tuple[str, ...]]:
    """Return a folder of libraries that modules link against, and options for the linker (mostly none).

    It has a stand-in for the driver's library and, where the compiler lacks it, a name for the shared C++ library.
    """
    environ = process.base_environment(machine.environ)
    folder, compiler = generated / "stubs", inputs.compiler.path
    provide_driver_stub(inputs.toolchain.home, compiler, folder, machine.runner, environ)
    return folder, shared_runtime(compiler, folder, machine.runner, environ)


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
