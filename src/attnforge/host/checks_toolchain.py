"""Findings about what a build runs: nvcc, host compiler, Python, uv, git."""

from __future__ import annotations

from collections.abc import Iterator

from attnforge.knowledge.host_compilers import (
    CompilerLimits,
    all_limits,
    compiler_limits,
    is_newer_glibc,
    major_version,
    torch_minimum,
)
from attnforge.knowledge.redist import pinned_release
from attnforge.knowledge.toolchains import pypi_toolchain
from attnforge.model.finding import Finding, Severity, Topic
from attnforge.model.host import Active, Host, HostCompiler, Installed, Toolkit

_FA = "https://github.com/Dao-AILab/flash-attention/issues"
_SA = "https://github.com/thu-ml/SageAttention/issues"
_ARCHIVE = "https://developer.nvidia.com/cuda-toolkit-archive"

_INDEX_CUDA = "13.0"
"""The toolchain that comes from the package index where no toolkit and no target say otherwise."""


def toolkit(host: Host, target_cuda: str) -> Finding:
    """Whether an nvcc is here that fits, or where one will come from: the package index or NVIDIA."""
    topic = Topic("nvcc", "CUDA toolkit")
    seen = "; ".join(f"nvcc {kit.nvcc} in {kit.home}" for kit in host.toolkits) or "none"
    if any(_fits(kit, target_cuda) for kit in host.toolkits):
        means = f"CUDA {target_cuda} is compiled with it" if target_cuda else "used for targets of that CUDA version"
        return topic.ok(seen, means=means)
    named = next((kit for kit in host.toolkits if kit.named_by and _same_major(kit, target_cuda)), None)
    coming = _coming(target_cuda, host.machine)
    if coming and not named:
        return topic.info(seen, means=coming)
    return _no_toolkit(host, target_cuda, seen)


def _coming(target_cuda: str, machine: str) -> str:
    """Return where a toolkit will come from, "" where none is known for that CUDA."""
    if not target_cuda:
        return "toolkits come from the package index for CUDA 13, and from NVIDIA for CUDA 12"
    if pypi_toolchain(_minor(target_cuda)):
        return f"CUDA {target_cuda}'s compilers will come from the package index"
    release = pinned_release(_minor(target_cuda), machine)
    if release is None:
        return ""
    megabytes = round(sum(archive.size for archive in release.archives) / 1e6)
    return f"CUDA {release.version}, nvcc {release.nvcc}, will be fetched from NVIDIA: {megabytes} MB"


def _same_major(kit: Toolkit, target_cuda: str) -> bool:
    return major_version(kit.cuda) == major_version(target_cuda)


def toolkits(host: Host) -> Iterator[Finding]:
    """What is wrong with each toolkit of this machine: parts that it lacks, headers older than this glibc."""
    for kit in host.toolkits:
        subject = f"CUDA toolkit in {kit.home}"
        severity = Severity.ERROR if kit.named_by else Severity.WARNING
        if kit.lacks:
            yield Topic("nvcc-incomplete", subject).of(
                severity,
                f"it lacks {', '.join(kit.lacks)}",
                means=f"{kit.named_by} names it: a build stops" if kit.named_by else "no build uses it",
                hint="install what it lacks (the component is in parentheses), or unset CUDA_HOME to have another used",
                link=f"{_FA}/157",
            )
        if is_newer_glibc(host.libc, kit.max_glibc):
            yield Topic("nvcc-glibc", subject).of(
                severity,
                f"its headers compile with glibc up to {kit.max_glibc}, this machine has {host.libc}",
                means="nvcc would fail in each unit: exception specification is incompatible",
                hint="build in a container with an older glibc (Debian 12, Ubuntu 24.04), or for CUDA 13.2 or later",
                link="https://github.com/pytorch/extension-cpp/issues/122",
            )


def _fits(kit: Toolkit, target_cuda: str) -> bool:
    return not kit.lacks and (not target_cuda or kit.cuda == _minor(target_cuda))


def _no_toolkit(host: Host, target_cuda: str, seen: str) -> Finding:
    near = any(_same_major(kit, target_cuda) for kit in host.toolkits)
    absent = f"neither the package index nor NVIDIA's pinned releases have CUDA {target_cuda}"
    return Topic("nvcc", "CUDA toolkit").of(
        Severity.WARNING if near else Severity.ERROR,
        seen,
        means="PyTorch's build accepts another minor version and warns of it" if near else absent,
        hint=f"install CUDA toolkit {target_cuda} and set CUDA_HOME to it, name a release of NVIDIA's (--toolchain "
        f"nvidia=={_minor(target_cuda)}.1), or build for CUDA 13: --cuda {_INDEX_CUDA}",
        link=_ARCHIVE if near else f"{_FA}/2783",
    )


def compilers(host: Host, target_cuda: str) -> Iterator[Finding]:
    """The host compiler against what each nvcc that a build may use accepts."""
    if not host.compilers:
        yield Topic("host-compiler", "C++ compiler").error(
            "none",
            means="nvcc compiles the host's half of each unit with g++, and links with it",
            hint="apt-get install g++ (Debian, Ubuntu) or dnf install gcc-c++ (Fedora, RHEL)",
        )
        return
    for cuda in _cudas(host, target_cuda):
        yield _compiler(host.compilers, cuda)
    yield from _without_shared_cxx(host.compilers)


def _without_shared_cxx(found: tuple[HostCompiler, ...]) -> Iterator[Finding]:
    lacking = [compiler for compiler in found if not compiler.has_shared_cxx]
    if lacking:
        yield Topic("host-cxx-library", "C++ library").warning(
            f"no libstdc++.so for {', '.join(compiler.path for compiler in lacking)}",
            means="modules get a copy of the library, and an error in one ends the process; attnforge links "
            "libstdc++.so.6 where the compiler has that",
            hint=f"apt-get install --reinstall libstdc++-{major_version(lacking[0].version)}-dev, for what else is "
            "compiled here",
        )


def _cudas(host: Host, target_cuda: str) -> tuple[str, ...]:
    named = [kit.cuda for kit in host.toolkits if kit.named_by and target_cuda and _same_major(kit, target_cuda)]
    found = (*named[:1],) or ((_minor(target_cuda),) if target_cuda else tuple(kit.cuda for kit in host.toolkits))
    return tuple(dict.fromkeys(found)) or (_INDEX_CUDA,)


def _compiler(found: tuple[HostCompiler, ...], cuda: str) -> Finding:
    seen = ", ".join(f"{compiler.name} {compiler.version} ({compiler.path})" for compiler in found)
    subject = f"C++ compiler for CUDA {cuda}"
    limits = compiler_limits(cuda)
    if limits is None:
        known = f"{all_limits()[0].cuda} to {all_limits()[-1].cuda}"
        return Topic("host-compiler", subject).unchecked(
            seen,
            means=f"which compilers nvcc {cuda} takes is not known here (known: {known})",
            hint=f"build for a known CUDA version, for example --cuda {_INDEX_CUDA}",
        )
    accepted = [compiler for compiler in found if limits.accepts(compiler)]
    if not accepted:
        return _none_fits(found[0], limits, subject, seen)
    best = next((compiler for compiler in accepted if _torch_takes(compiler, limits)), accepted[0])
    return _fits_with(best, found[0], limits, subject, seen)


def _torch_takes(compiler: HostCompiler, limits: CompilerLimits) -> bool:
    bound = limits.torch_max(compiler.name)
    return not bound or major_version(compiler.version) <= bound


def _none_fits(compiler: HostCompiler, limits: CompilerLimits, subject: str, seen: str) -> Finding:
    lowest, highest = limits.bounds(compiler.name)
    lowest = max(lowest, torch_minimum(compiler.name))
    usual = min(limits.max_gcc, limits.torch_max_gcc or limits.max_gcc)
    return Topic("host-compiler", subject).error(
        seen,
        means=f"nvcc {limits.cuda} and PyTorch's headers take {compiler.name} {lowest} to {highest}",
        hint=f"apt-get install g++-{usual} (dnf install gcc-toolset-{usual}-gcc-c++), then set CXX=g++-{usual}",
        link=f"{_SA}/246",
    )


def _fits_with(best: HostCompiler, preferred: HostCompiler, limits: CompilerLimits, subject: str, seen: str) -> Finding:
    taken = f"nvcc {limits.cuda} takes {best.name} {limits.bounds(best.name)[0]} to {limits.bounds(best.name)[1]}"
    bound = limits.torch_max(best.name)
    severity, means, hint = Severity.OK, taken, ""
    if not _torch_takes(best, limits):
        severity, means = Severity.WARNING, f"{taken}; PyTorch's build refuses any above {bound}"
        hint = f"apt-get install g++-{bound}, then set CXX=g++-{bound}"
    elif best != preferred:
        severity, means = Severity.WARNING, f"{taken}; {preferred.path} does not fit, {best.path} does"
        hint = f"set CXX={best.path}"
    link = f"{_SA}/246" if hint else ""
    return Topic("host-compiler", subject).of(severity, seen, means=means, hint=hint, link=link)


def python(host: Host) -> Finding:
    """Interpreters that extensions can be compiled for; uv fetches others, with their headers."""
    topic = Topic("python", "Python")
    ready = [interpreter.version for interpreter in host.interpreters if interpreter.has_headers]
    bare = [interpreter.version for interpreter in host.interpreters if not interpreter.has_headers]
    without = f"without headers: {', '.join(bare)}" if bare else ""
    seen = "; ".join(filter(None, (", ".join(ready), without))) or "none"
    if ready:
        means = "wheels are compiled for these; uv fetches others"
        return topic.ok(seen, means=means)
    return topic.warning(
        seen,
        means="extensions need Python.h; uv has to fetch an interpreter that has it",
        hint="uv python install 3.12, or apt-get install python3-dev (dnf install python3-devel)",
    )


def uv(host: Host) -> Finding:
    """Environments and packages are installed by uv, which attnforge depends on."""
    topic = Topic("uv", "uv")
    if host.uv:
        return topic.ok(host.uv)
    return topic.error("none", means="build environments can't be made", hint="python3 -m pip install uv")


def pip(host: Host) -> Finding:
    """Pip is not needed; its configuration is read for indexes and credentials."""
    topic = Topic("pip", "pip")
    if host.pip:
        return topic.ok(host.pip)
    return topic.info("none", means="not needed: uv installs what a build needs")


def git(host: Host) -> Finding:
    """People clone sources with it; attnforge itself builds the folder that they have then."""
    topic = Topic("git", "git")
    if host.git:
        return topic.ok(host.git)
    return topic.info(
        "none",
        means="archives and folders build without it; it is needed to clone a source",
        hint="apt-get install git (dnf install git)",
    )


def torch(host: Host, active: Active) -> Finding:
    """PyTorch is not needed here, and one for CUDA in the active environment is what builds are for by default."""
    topic = Topic("torch", "PyTorch")
    found = active.installed
    if found:
        seen = f"{found.calls_itself} of {found.place}, Python {found.minor}"
        means = "builds that name no PyTorch, Python, CUDA or target are for it, and check, bench and audit use it"
        return topic.ok(seen, means=means)
    if active.unfit and active.unfit.trouble:
        return _broken_torch(active.unfit)
    looked = "; ".join(f"{place}: {why}" for place, why in active.passed)
    means = "each build installs the PyTorch of its target into a separate environment"
    return topic.info(
        f"none for CUDA in an active environment{f' ({looked})' if looked else ''}",
        means=f"{means}; the default is the version beside attnforge, {host.torch}" if host.torch else means,
    )


def _broken_torch(found: Installed) -> Finding:
    return Topic("torch", "PyTorch").warning(
        f"{found.place}: {found.shortcoming}",
        means="builds can't be for it; each installs the PyTorch of its target into a separate environment",
        hint=f"this shows it: {found.python} -c 'import torch'",
    )


def _minor(cuda: str) -> str:
    return ".".join(cuda.split(".")[:2])
