"""A CUDA toolchain: the system's, or one of packages from the package index, completed so that it compiles and links.

One of NVIDIA's archives is made in provision.redist, and completed and tried here too.

nvcc works from a folder whose path has spaces or letters outside ASCII (tried with 13.0: it quotes its own paths), but
what it quotes goes through a shell in double quotes, so a path must hold none of the characters that are special there.
PyTorch writes nvcc's path unquoted into build.ninja (torch.utils.cpp_extension, ``nvcc = ...``) unless PYTORCH_NVCC
is set.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from attnforge.errors import HostError, RequestError
from attnforge.knowledge.toolchains import ToolchainPackages, pypi_toolchain, pypi_toolchains
from attnforge.paths import Folders
from attnforge.process import Command, Outcome, Runner, base_environment
from attnforge.provision.hostpath import host_path
from attnforge.provision.store import Facts, is_complete, provide
from attnforge.provision.uv import Uv

_LAYOUT = 1  # raised when the links that complete a toolchain change
_SPECIAL = re.compile(r'["$`\\\n]')
_PROBE = """
#include <nv/target>
__global__ void twice(float* x) { x[threadIdx.x] *= 2; }
extern "C" int launch(float* x) { twice<<<1, 32>>>(x); return (int)cudaGetLastError(); }
"""

Origin = Literal["system", "pypi", "nvidia"]


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A CUDA toolchain that is ready.

    ``home`` serves as CUDA_HOME, ``nvcc`` is the compiler in it, ``cuda`` its ``13.0`` and ``version`` its full build
    ``13.0.88``. ``packages`` are the exact packages or components that it is made of, none for the system's.
    """

    home: Path
    nvcc: Path
    cuda: str
    version: str
    origin: Origin
    packages: tuple[str, ...] = ()


def provide_toolchain(
    cuda: str, origin: Literal["system", "pypi"], home: str, folders: Folders, uv: Uv, compiler: str = ""
) -> Toolchain:
    """Return the toolchain of a CUDA minor (``13.0``): the system's at ``home``, or the package index's.

    One from the index is installed once, and was seen to compile and link a kernel with the C++ compiler at
    ``compiler`` before it counts as complete. RequestError where the index has no whole toolchain of that CUDA.
    HostError where nvcc is another version or does not work, where there is no C++ compiler or too new a one, or
    where network or disk fail.
    """
    if origin == "system":
        return _system(cuda, Path(home), uv)
    packages = pypi_toolchain(cuda)
    if packages is None:
        raise _not_on_index(cuda)
    entry = folders.toolchains / _digest(packages)
    check_path(entry)
    provide(entry, lambda folder: _make(folder, packages, uv, compiler), lambda _: _nvcc(entry, packages).exists())
    nvcc = _nvcc(entry, packages)
    return Toolchain(nvcc.parent.parent, nvcc, cuda, packages.nvcc, "pypi", packages.packages)


def has_packages(folders: Folders, cuda: str) -> bool:
    """Say whether the package index's toolchain of a CUDA minor was installed already."""
    packages = pypi_toolchain(cuda)
    return packages is not None and is_complete(folders.toolchains / _digest(packages))


def _system(cuda: str, home: Path, uv: Uv) -> Toolchain:
    nvcc = home / "bin" / "nvcc"
    found = nvcc_version(nvcc, uv.runner, base_environment(uv.environ))
    if _minor(found) != cuda:
        raise HostError(
            f"the CUDA toolkit in {home} is {found}, not {cuda}",
            hint=f"choose --cuda {_minor(found)}, or set CUDA_HOME to a toolkit of CUDA {cuda}",
        )
    return Toolchain(home, nvcc, cuda, found, "system")


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _not_on_index(cuda: str) -> RequestError:
    whole = ", ".join(toolchain.cuda for toolchain in pypi_toolchains())
    return RequestError(
        f"the package index has no whole toolchain of CUDA {cuda}",
        why=f"it has {whole}; for CUDA 12 it lacks nvcc itself",
        hint=f"install the CUDA toolkit {cuda} and set CUDA_HOME to it, or choose --cuda {pypi_toolchains()[0].cuda}",
    )


def _digest(packages: ToolchainPackages) -> str:
    made_of = " ".join((*sorted(packages.packages), str(_LAYOUT)))
    return f"cuda-{packages.cuda}-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"


def _nvcc(entry: Path, packages: ToolchainPackages) -> Path:
    return entry / "site" / packages.home / "bin" / "nvcc"


def check_path(entry: Path) -> None:
    """Raise HostError for a folder that nvcc can't work in."""
    special = _SPECIAL.search(str(entry))
    if special:
        raise HostError(
            f"nvcc can't work in {entry}",
            why=f"it hands its path to a shell, where {special[0]!r} is special",
            hint="set ATTNFORGE_CACHE to a folder without that character",
        )


def _make(folder: Path, packages: ToolchainPackages, uv: Uv, compiler: str) -> Facts:
    check_compiler(compiler)
    uv.install_target(folder / "site", packages.packages, "--no-deps")
    nvcc = _nvcc(folder, packages)
    complete(nvcc.parent.parent)
    found = nvcc_version(nvcc, uv.runner, {})
    if found != packages.nvcc:
        raise HostError(
            f"the nvcc that was installed is {found}, not {packages.nvcc}",
            hint="check the index or mirror that pip and uv are configured with",
        )
    check_compiles(nvcc, folder, compiler, uv.runner, uv.environ)
    return {"packages": list(packages.packages), "nvcc": found}


def check_compiler(compiler: str) -> None:
    """Raise HostError where there is no C++ compiler."""
    if not compiler:
        raise HostError(
            "there is no C++ compiler, which nvcc needs",
            hint="apt install g++   (or: dnf install gcc-c++)",
        )


def complete(home: Path) -> None:
    """Add what the packages lack of a CUDA_HOME: a folder lib64, and library names for the linker.

    nvcc's own profile and PyTorch's link flags name lib64, and ``-lcudart`` needs a libcudart.so without a number.
    """
    lib = home / "lib"
    _link(home / "lib64", "lib")
    for library in sorted(lib.glob("lib*.so.*")):
        _link(lib / f"{library.name.partition('.so.')[0]}.so", library.name)


def _link(place: Path, target: str) -> None:
    if not place.exists():
        place.symlink_to(target)


def nvcc_version(nvcc: Path, runner: Runner, environment: dict[str, str]) -> str:
    """Return an nvcc's full build version, ``13.0.88``; HostError where it does not run or says none."""
    try:
        outcome = runner(Command((str(nvcc), "--version"), nvcc.parent, environment, timeout=60))
    except OSError as error:
        raise HostError(
            f"nvcc can't be started: {nvcc}", why=str(error), hint="set CUDA_HOME to a folder that has bin/nvcc"
        ) from error
    match = re.search(r"release [\d.]+, V(?P<version>\d+(?:\.\d+)+)", outcome.output)
    if not outcome.ok or match is None:
        raise HostError(
            f"{nvcc} does not work", why=outcome.output.strip()[-500:], hint="install the CUDA toolkit again"
        )
    return match["version"]


def check_compiles(nvcc: Path, folder: Path, compiler: str, runner: Runner, environ: Mapping[str, str]) -> None:
    """Compile and link a kernel in ``folder`` with nothing of CUDA on PATH, as a build will.

    HostError where that fails, by what made it fail.
    """
    work = folder / "probe"
    work.mkdir()
    (work / "probe.cu").write_text(_PROBE, encoding="utf-8")
    argv = (str(nvcc), "-ccbin", compiler, "-shared", "-Xcompiler", "-fPIC", "-lcudart", "-o", "probe.so", "probe.cu")
    # Its temporary files go with the folder, also where it is killed.
    variables = {**base_environment(environ), "PATH": host_path(compiler), "TMPDIR": str(work)}
    outcome = runner(Command(argv, work, variables, timeout=300))
    if not outcome.ok:
        raise _does_not_compile(outcome, compiler)


def _does_not_compile(outcome: Outcome, compiler: str) -> HostError:
    lines = [line.strip() for line in outcome.output.splitlines() if line.strip()]
    first = next((line for line in lines if re.search(r"error|fatal|not found", line, re.IGNORECASE)), "")
    if "unsupported GNU version" in outcome.output or "unsupported clang version" in outcome.output:
        return HostError(
            f"the C++ compiler {compiler} is newer than this nvcc supports",
            why=first,
            hint="install an older one and name it: apt install g++-12, then CXX=g++-12",
            link="https://github.com/thu-ml/SageAttention/issues/246",
        )
    if "exception specification is incompatible" in outcome.output:
        return HostError(
            "the headers of this CUDA do not compile with the glibc of this machine",
            why=first,
            hint="build in a container with an older glibc (Debian 12, Ubuntu 24.04), or for CUDA 13.2 or later",
            link="https://github.com/pytorch/extension-cpp/issues/122",
        )
    return HostError(
        f"the installed CUDA toolchain does not compile with {compiler}",
        why=first or (lines[-1] if lines else "no message"),
        hint="apt install g++ binutils libc6-dev, and look at `attnforge doctor`",
    )
