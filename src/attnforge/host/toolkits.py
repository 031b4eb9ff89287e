"""CUDA toolkits and host compilers on this machine."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from attnforge.host.completeness import lacking, max_glibc, searched_by
from attnforge.host.programs import Programs, is_executable
from attnforge.model.host import HostCompiler, Toolkit

_RELEASE = re.compile(r"release (?P<cuda>\d+\.\d+)(?:, V(?P<nvcc>\d+(?:\.\d+)+))?")
_TOP = re.compile(r"^#\$ (?:_?TOP)=(?P<top>.+)$", re.MULTILINE)
_HEADERS = ("include/cuda_runtime.h", "targets/x86_64-linux/include/cuda_runtime.h")
_DRY = ("--dryrun", "-E", "-x", "cu", "/dev/null")
_VARIABLES = ("CUDA_HOME", "CUDA_PATH")
_CXX = re.compile(r"g\+\+(?:-\d+)?|clang\+\+(?:-\d+)?")
_VERSION = re.compile(r"^\d+(?:\.\d+)*$", re.MULTILINE)


def find_toolkits(programs: Programs, root: Path) -> tuple[Toolkit, ...]:
    """Return the toolkits in the order in which they are preferred: CUDA_HOME, CUDA_PATH, PATH, /usr/local.

    A toolkit is an nvcc with cuda_runtime.h in its home; each home is listed once, under its real path.
    """
    homes: dict[Path, tuple[Path, str]] = {}
    for nvcc, variable in _nvccs(programs, root).items():
        home = _home(programs, nvcc)
        if home is not None:
            homes.setdefault(home.resolve(), (nvcc, variable))
    found = (_toolkit(programs, home, nvcc, variable) for home, (nvcc, variable) in homes.items())
    return tuple(toolkit for toolkit in found if toolkit is not None)


def _nvccs(programs: Programs, root: Path) -> dict[Path, str]:
    """Return each nvcc with the variable that names its toolkit, "" for none."""
    of_variables: dict[Path, str] = {}
    for key in _VARIABLES:
        if home := programs.environ.get(key, ""):
            of_variables.setdefault(Path(home) / "bin/nvcc", key)
    local = root / "usr/local"
    usual = [local / "cuda", *sorted(local.glob("cuda-*"), reverse=True)]
    on_path = (folder / "nvcc" for folder in programs.folders)
    candidates = dict.fromkeys([*of_variables, *on_path, *(home / "bin/nvcc" for home in usual)])
    return {path: of_variables.get(path, "") for path in candidates if is_executable(path)}


def _home(programs: Programs, nvcc: Path) -> Path | None:
    """Return the folder of an nvcc's headers: above its real path, or, for a wrapper, where nvcc says."""
    for binary in (nvcc, nvcc.resolve()):
        if _has_headers(home := binary.parent.parent):
            return home
    match = _TOP.search(programs.ask(nvcc, *_DRY))
    home = Path(match["top"].strip()) if match else nvcc
    return home if _has_headers(home) else None


def _has_headers(home: Path) -> bool:
    return any((home / header).is_file() for header in _HEADERS)


def _toolkit(programs: Programs, home: Path, nvcc: Path, variable: str) -> Toolkit | None:
    match = _RELEASE.search(programs.ask(nvcc, "--version"))
    if match is None:
        return None
    searched = searched_by(home, nvcc, programs.ask(nvcc, *_DRY))
    return Toolkit(
        home=str(home),
        cuda=match["cuda"],
        nvcc=match["nvcc"] or match["cuda"],
        named_by=variable,
        lacks=lacking(searched),
        max_glibc=max_glibc(searched),
    )


def find_compilers(programs: Programs) -> tuple[HostCompiler, ...]:
    """Return the C++ compilers in the order in which a build takes them: CXX, c++, g++, then any others on PATH."""
    found: dict[tuple[Path, str], HostCompiler] = {}
    for path in _compiler_paths(programs):
        name = _compiler_name(path)
        key = (path.resolve(), name)
        if key not in found and (compiler := _compiler(programs, path, name)) is not None:
            found[key] = compiler
    return tuple(found.values())


_SHARED_CXX = "libstdc++.so"


def _compiler_paths(programs: Programs) -> Iterator[Path]:
    named = _first_word(programs.environ.get("CXX", ""))
    asked = [Path(named)] if named.startswith("/") else [programs.find(named)] if named else []
    for path in [*asked, programs.find("c++"), programs.find("g++"), programs.find("clang++")]:
        if path is not None and is_executable(path):
            yield path
    yield from programs.find_all(_CXX)


def _first_word(command: str) -> str:
    try:
        return next(iter(shlex.split(command)), "")
    except ValueError:
        return ""


def _compiler_name(path: Path) -> str:
    # c++ is a link whose real name tells which it is; where the link goes to ccache only the called name does.
    names = f"{path.name} {path.resolve().name}"
    return "clang++" if "clang" in names else "g++"


def _compiler(programs: Programs, path: Path, name: str) -> HostCompiler | None:
    # -dumpversion prints "12" with Debian's g++; clang++ knows only this one.
    options = ("-dumpversion",) if name == "clang++" else ("-dumpfullversion", "-dumpversion")
    match = _VERSION.search(programs.ask(path, *options))
    if match is None:
        return None
    return HostCompiler(path=str(path), name=name, version=match[0], has_shared_cxx=_has_shared_cxx(programs, path))


def _has_shared_cxx(programs: Programs, path: Path) -> bool:
    # It answers with the bare name where it has no such file.
    return programs.ask(path, f"-print-file-name={_SHARED_CXX}").strip() != _SHARED_CXX
