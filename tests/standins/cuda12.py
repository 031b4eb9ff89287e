"""A CUDA 12 toolkit for tests, made in some 15 seconds without installing anything.

nvcc 12.4 is taken from Debian 13's package, headers and the runtime from the package index: 115 MB in all. It compiles
and links like NVIDIA's, but for what is linked statically: its libcudart_static.a is empty.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from attnforge import Machine

PACKAGE, SUITE = "nvidia-cuda-toolkit", "trixie"
WHEELS = ("nvidia-cuda-nvcc-cu12==12.4.131", "nvidia-cuda-runtime-cu12==12.4.127")
# CCCL of 12.4 lacks nv/target on the package index.
CCCL = "nvidia-cuda-cccl-cu12==12.8.90"

PROGRAMS = ("cudafe++", "fatbinary", "nvlink", "ptxas", "bin2c")
PROFILE = """\
TOP = $(_HERE_)/..
NVVMIR_LIBRARY_DIR = $(TOP)/$(_NVVM_BRANCH_)/libdevice
PATH += $(TOP)/$(_NVVM_BRANCH_)/bin:$(_HERE_):
INCLUDES += "-I$(TOP)/include" $(_SPACE_)
LIBRARIES =+ $(_SPACE_) "-L$(TOP)/lib64/stubs" "-L$(TOP)/lib64"
"""


class NotHereError(Exception):
    """The toolkit can't be made on this machine."""


def make_cuda_12(folder: Path) -> Path:
    """Make the toolkit in ``folder``/cuda and return that; NotHereError where apt or the index does not have it."""
    root = _debian(folder / "debian")
    site = folder / "site"
    uv = Machine(os.environ).uv
    try:
        uv.install_target(site, (*WHEELS, CCCL), "--no-deps")
    except Exception as error:
        raise NotHereError(f"the package index does not have {', '.join((*WHEELS, CCCL))}: {error}") from error
    return _together(root / "usr", site / "nvidia", folder / "cuda")


def _debian(work: Path) -> Path:
    """Fetch and unpack Debian's package."""
    source = _debian_url()
    if not source or not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise NotHereError("there is no apt-get that is set up with Debian's packages")
    for name in ("lists/partial", "archives/partial"):
        (work / name).mkdir(parents=True)
    (work / "sources.list").write_text(f"deb [trusted=yes] {source} {SUITE} non-free\n")
    options = {"Dir::Etc::SourceList": work / "sources.list", "Dir::Etc::SourceParts": "/dev/null"}
    options |= {"Dir::State::Lists": work / "lists", "Dir::Cache": work}
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    _run([*apt, "update"], work)
    _run([*apt, "download", PACKAGE], work)
    (package,) = work.glob("*.deb")
    _run(["dpkg", "-x", str(package), str(work / "root")], work)
    return work / "root"


def _debian_url() -> str:
    """Return the URL that this machine's apt has Debian from, "" where it has it from nowhere."""
    place = Path("/etc/apt/sources.list.d/debian.sources")
    match = re.search(r"^URIs: *(\S+)", place.read_text(), re.MULTILINE) if place.is_file() else None
    return match[1] if match else ""


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise NotHereError(f"{command[0]} can't get {PACKAGE} of {SUITE}: {done.stderr.strip()[-300:]}")


def _together(debian: Path, wheels: Path, home: Path) -> Path:
    own = debian / "lib" / "nvidia-cuda-toolkit"
    for name in ("bin", "include", "lib64/stubs", "nvvm/bin"):
        (home / name).mkdir(parents=True)
    for program in (*(debian / "bin" / name for name in PROGRAMS), own / "bin" / "nvcc"):
        shutil.copy(program, home / "bin")
    shutil.copytree(own / "bin" / "crt", home / "bin" / "crt")
    shutil.copy(own / "bin" / "cicc", home / "nvvm" / "bin")
    shutil.copytree(own / "libdevice", home / "nvvm" / "libdevice")
    for package in ("cuda_cccl", "cuda_runtime", "cuda_nvcc"):
        shutil.copytree(wheels / package / "include", home / "include", dirs_exist_ok=True)
    shutil.copy(wheels / "cuda_runtime" / "lib" / "libcudart.so.12", home / "lib64")
    (home / "lib64" / "libcudart.so").symlink_to("libcudart.so.12")
    for name in ("libcudart_static.a", "libcudadevrt.a"):
        subprocess.run(["ar", "rc", str(home / "lib64" / name)], check=True)
    (home / "bin" / "nvcc.profile").write_text(PROFILE)
    return home
