"""Which CUDA toolchain and which host compiler."""

from __future__ import annotations

from collections.abc import Sequence

from attnforge.errors import HostError, RequestError
from attnforge.knowledge.host_compilers import CompilerLimits, compiler_limits, major_version, supports
from attnforge.knowledge.toolchains import ToolchainPackages, pypi_toolchain
from attnforge.model.host import Host, HostCompiler, Toolkit
from attnforge.model.plan import ToolchainPin
from attnforge.model.target import Architecture
from attnforge.resolve.decisions import Notes

SYSTEM, PYPI = "system", "pypi"


def choose_toolchain(
    cuda: str, architectures: Sequence[Architecture], origin: str, host: Host, notes: Notes
) -> ToolchainPin:
    """Return the toolchain: this machine's of exactly that CUDA, else the package index's, else a near one of here.

    PyTorch refuses an nvcc of another CUDA major and warns at another minor (FA#2783). Raises HostError where there
    is none, RequestError where the toolchain has no code for an architecture of the target.
    """
    compiler = choose_compiler(cuda, host, notes)
    pin = _toolkit(cuda, origin, host, compiler, notes)
    for architecture in architectures:
        if not supports(pin.cuda, architecture):
            raise RequestError(
                f"nvcc of CUDA {pin.cuda} makes no code for {architecture.sm}",
                why=f"compute capability {architecture.dotted} came with another CUDA",
                hint="another --cuda, with a --torch that is built with it: `attnforge plan --explain` lists them",
            )
    return pin


def _toolkit(cuda: str, origin: str, host: Host, compiler: HostCompiler, notes: Notes) -> ToolchainPin:
    if origin not in ("", SYSTEM, PYPI):
        raise RequestError(f"there is no toolchain {origin!r}", hint=f"--toolchain {SYSTEM} or --toolchain {PYPI}")
    same_major = [toolkit for toolkit in host.toolkits if toolkit.cuda.split(".")[0] == cuda.split(".")[0]]
    exact = [toolkit for toolkit in same_major if toolkit.cuda == cuda]
    packages = pypi_toolchain(cuda)
    if exact and origin != PYPI:
        return _of_system(exact[0], "this machine has exactly that CUDA", compiler, notes, packages)
    if packages and origin != SYSTEM:
        return _of_index(packages, host, compiler, notes)
    if same_major and origin != PYPI:
        near = same_major[0]
        notes.warn(
            "toolchain",
            f"torch is built with CUDA {cuda}, this machine's nvcc is {near.cuda}: PyTorch takes the same major",
            hint=f"install CUDA {cuda} for an exact match",
            link="https://github.com/Dao-AILab/flash-attention/issues/2783",
        )
        return _of_system(near, f"the same major as CUDA {cuda}", compiler, notes, packages)
    raise _missing(cuda, origin, host)


def _of_system(
    toolkit: Toolkit, reason: str, compiler: HostCompiler, notes: Notes, packages: ToolchainPackages | None
) -> ToolchainPin:
    rejected = [(PYPI, "the machine's own needs no download")] if packages else []
    notes.decide("toolchain", f"{SYSTEM}: nvcc {toolkit.nvcc}", reason, rejected)
    return ToolchainPin(origin=SYSTEM, cuda=toolkit.cuda, nvcc=toolkit.nvcc, host_compiler=_named(compiler))


def _of_index(packages: ToolchainPackages, host: Host, compiler: HostCompiler, notes: Notes) -> ToolchainPin:
    rejected = [(f"{SYSTEM}: nvcc {toolkit.nvcc}", f"is not CUDA {packages.cuda}") for toolkit in host.toolkits]
    reason = f"CUDA {packages.cuda} is on the package index" + ("" if rejected else " and this machine has no nvcc")
    notes.decide("toolchain", f"{PYPI}: nvcc {packages.nvcc}", reason, rejected)
    return ToolchainPin(
        origin=PYPI,
        cuda=packages.cuda,
        nvcc=packages.nvcc,
        packages=packages.packages,
        host_compiler=_named(compiler),
    )


def _missing(cuda: str, origin: str, host: Host) -> HostError:
    seen = ", ".join(f"{toolkit.cuda} in {toolkit.home}" for toolkit in host.toolkits) or "no nvcc"
    if origin == PYPI:
        return HostError(
            f"the package index has no whole toolchain of CUDA {cuda}",
            why="for CUDA 12 it holds ptxas, libnvvm and headers but no nvcc",
            hint="--toolchain system, on a machine with that CUDA toolkit",
        )
    return HostError(
        f"no nvcc of CUDA {cuda.split('.')[0]} is on this machine, and the package index has no toolchain of {cuda}",
        why=f"this machine has {seen}; PyTorch refuses an nvcc of another major",
        hint=f"install the CUDA {cuda} toolkit (NVIDIA's images nvidia/cuda:{cuda}.*-devel-* hold it) and set "
        "CUDA_HOME, or choose a torch built with CUDA 13: --torch 2.11.0",
        link="https://github.com/Dao-AILab/flash-attention/issues/2783",
    )


def choose_compiler(cuda: str, host: Host, notes: Notes) -> HostCompiler:
    """Return the first C++ compiler of this machine that this CUDA takes; HostError that says which would do."""
    limits = compiler_limits(cuda)
    if not host.compilers:
        raise HostError(
            "no C++ compiler is on this machine",
            why="nvcc compiles host code with one, and PyTorch's headers need C++17",
            hint="apt-get install g++  (or set CXX)",
        )
    rejected: list[tuple[str, str]] = []
    for compiler in host.compilers:
        refused = _refusal(compiler, limits) if limits else ""
        if not refused:
            notes.decide("host compiler", _named(compiler), f"nvcc of CUDA {cuda} takes it", rejected)
            return compiler
        rejected.append((_named(compiler), refused))
    assert limits is not None
    newest = min(limits.max_gcc, limits.torch_max_gcc or limits.max_gcc)
    raise HostError(
        f"no C++ compiler of this machine is one that nvcc of CUDA {cuda} takes",
        why="; ".join(f"{name}: {reason}" for name, reason in rejected),
        hint=f"apt-get install g++-{newest} (it is found by its name on PATH, or set CXX)",
        link="https://github.com/thu-ml/SageAttention/issues/246",
    )


def _refusal(compiler: HostCompiler, limits: CompilerLimits) -> str:
    """Return why a compiler will not do, or "". PyTorch's build has a bound too, at times tighter than nvcc's."""
    lowest, highest = limits.bounds(compiler.name)
    bound = limits.torch_max(compiler.name)
    if not limits.accepts(compiler):
        return f"nvcc of CUDA {limits.cuda} takes {compiler.name} {lowest} to {highest}"
    if bound and major_version(compiler.version) > bound:
        return f"PyTorch's build takes {compiler.name} up to {bound} with CUDA {limits.cuda}"
    return ""


def _named(compiler: HostCompiler) -> str:
    return f"{compiler.name} {compiler.version}"
