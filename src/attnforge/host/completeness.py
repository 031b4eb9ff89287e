"""What a CUDA toolkit on this machine lacks of what a build reads, by the files in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HEADERS = {
    "crt/host_runtime.h": "cuda_crt, or cuda_nvcc before 13.0",
    "cuda_fp16.h": "cuda_cudart",
    "nv/target": "cuda_cccl",
}
_PROGRAMS = {
    "cudafe++": "cuda_nvcc",
    "cicc": "libnvvm, or cuda_nvcc before 13.0",
    "ptxas": "cuda_nvcc",
    "fatbinary": "cuda_nvcc",
}
_LIBRARIES = {"libcudart.so": "cuda_cudart"}

_SETTING = re.compile(r"^#\$ (?P<name>\w+)=(?P<value>.*)$", re.MULTILINE)
_FOLDER = re.compile(r'-[IL]"?(?P<folder>[^"\s]+)')

# crt/math_functions.h declares these bare where it does not allow for a glibc that declares them too (2.41, 2.42).
_SINPI = re.compile(r"\bsinpi\(double x\)\s*;")
_RSQRT = re.compile(r"\brsqrt\(double x\)\s*;")


@dataclass(frozen=True, slots=True)
class Searched:
    """The folders that an nvcc takes its headers, programs and libraries from; no programs where it does not tell."""

    headers: tuple[Path, ...]
    programs: tuple[Path, ...]
    libraries: tuple[Path, ...]


def searched_by(home: Path, nvcc: Path, told: str) -> Searched:
    """Return where nvcc looks. ``told`` is what it printed for --dryrun: its settings, each on a line ``#$ NAME=``.

    The usual folders of a toolkit are searched too: a distribution's nvcc finds some by the compiler's own paths. Where
    an nvcc tells nothing (a wrapper that does not pass --dryrun on), its programs may be anywhere.
    """
    settings = {match["name"]: match["value"] for match in _SETTING.finditer(told)}
    targets = sorted(home.glob("targets/*"))
    roots = [home, *targets]
    includes = [root / name for root in roots for name in ("include", "include/cccl")]
    libraries = [root / name for root in roots for name in ("lib64", "lib", "lib/x86_64-linux-gnu")]
    beside = [nvcc.parent, nvcc.resolve().parent, home / "bin", home / "nvvm" / "bin"]
    named = [Path(part) for part in settings.get("PATH", "").split(":") if part.startswith("/")]
    cicc = [Path(settings["CICC_PATH"])] if "CICC_PATH" in settings else []
    return Searched(
        headers=(*includes, *_folders(settings.get("INCLUDES", ""))),
        programs=(*beside, *named, *cicc) if settings else (),
        libraries=(*libraries, *_folders(settings.get("LIBRARIES", ""))),
    )


def _folders(options: str) -> Iterator[Path]:
    for match in _FOLDER.finditer(options):
        yield Path(match["folder"])


def lacking(searched: Searched) -> tuple[str, ...]:
    """Return what is in none of the folders, each with NVIDIA's component that has it: ``nv/target (cuda_cccl)``."""
    wanted = ((_HEADERS, searched.headers), (_PROGRAMS, searched.programs), (_LIBRARIES, searched.libraries))
    return tuple(
        f"{name} ({component})"
        for names, folders in wanted
        for name, component in names.items()
        if folders and not any((folder / name).exists() for folder in folders)
    )


def max_glibc(searched: Searched) -> str:
    """Return the newest glibc whose headers the toolkit's compile with, "" where no bound is known."""
    found = (folder / "crt" / "math_functions.h" for folder in searched.headers)
    header = next((path for path in found if path.is_file()), None)
    text = header.read_text(encoding="utf-8", errors="replace") if header else ""
    if _SINPI.search(text):
        return "2.40"
    return "2.41" if _RSQRT.search(text) else ""
