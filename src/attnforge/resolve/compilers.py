"""Which host compiler goes with a CUDA toolkit, and whether the toolkit can compile for the target here."""

from __future__ import annotations

from collections.abc import Sequence

from attnforge.errors import HostError, RequestError
from attnforge.knowledge.host_compilers import (
    CompilerLimits,
    compiler_limits,
    is_newer_glibc,
    major_version,
    supports,
)
from attnforge.model.host import Host, HostCompiler
from attnforge.model.plan import ToolchainPin
from attnforge.model.target import Architecture
from attnforge.resolve.decisions import Notes
from attnforge.resolve.toolchain import SYSTEM

_GLIBC_LINK = "https://github.com/pytorch/extension-cpp/issues/122"


def with_compiler(pin: ToolchainPin, architectures: Sequence[Architecture], host: Host, notes: Notes) -> ToolchainPin:
    """Return a toolkit with the host compiler that goes with it.

    Raises RequestError where its nvcc has no code for an architecture of the target; HostError where this machine's
    glibc is too new for its headers, or no C++ compiler here is one that it takes.
    """
    _check_architectures(pin, architectures)
    _check_glibc(pin, host)
    compiler = choose_compiler(pin.cuda, host, notes)
    return pin.model_copy(update={"host_compiler": _named(compiler)})


def _check_architectures(pin: ToolchainPin, architectures: Sequence[Architecture]) -> None:
    for architecture in architectures:
        if not supports(pin.cuda, architecture):
            raise RequestError(
                f"nvcc of CUDA {pin.cuda} makes no code for {architecture.sm}",
                why=f"compute capability {architecture.dotted} came with another CUDA",
                hint="another --cuda, with a --torch that is built with it: `attnforge plan --explain` lists them",
            )


def _check_glibc(pin: ToolchainPin, host: Host) -> None:
    """Refuse a toolkit whose headers declare what a newer glibc declares too, in another way.

    glibc 2.41 brought sinpi, cospi and their like, 2.42 rsqrt. Each unit would fail: "exception specification is
    incompatible with that of previous function".
    """
    if pin.origin == SYSTEM:
        bound = next((kit.max_glibc for kit in host.toolkits if kit.nvcc == pin.nvcc and not kit.lacks), "")
    else:
        limits = compiler_limits(pin.cuda)
        bound = limits.max_glibc if limits else ""
    if is_newer_glibc(host.libc, bound):
        raise HostError(
            f"the headers of CUDA {pin.cuda} compile with glibc up to {bound}, this machine has {host.libc}",
            why="both declare the same functions, and nvcc refuses the second declaration of each",
            hint="build in a container with an older glibc (Debian 12, Ubuntu 24.04), or for CUDA 13.2 or later",
            link=_GLIBC_LINK,
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
