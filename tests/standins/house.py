"""Makes what builds take from elsewhere: a folder of wheels, a CUDA toolkit, upstream's projects."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from attnforge.provision.configuration import read_settings
from attnforge.provision.indexes import session
from attnforge.recipes.catalogue import find_recipe

HERE = Path(__file__).parent
FLASH_VERSION = "2.8.3"

# What runs in a build. All else that a recipe lists is there to satisfy requirements, and an empty package does.
REAL = {"setuptools", "wheel", "packaging"}
UNPINNED = "1.0"

# What tests of one PyTorch are for, and what universal wheels are for besides.
TORCH = "2.11.0"
MORE_TORCHES = ("2.12.1", "2.13.0")


def make_wheels(folder: Path) -> Path:
    """Fill a folder with all that build environments are made of: the stand-in PyTorch, and what recipes require."""
    folder.mkdir()
    torch_wheel(folder)
    required = {*find_recipe("flash-attn").requirements, *find_recipe("tinykernels").requirements}
    for requirement in map(Requirement, sorted(required)):
        if requirement.name in REAL:
            fetch(requirement, folder)
        else:
            version = next((part.version for part in requirement.specifier), UNPINNED)
            write_wheel(folder, requirement.name, version, "py3-none-any", {})
    return folder


def fetch(requirement: Requirement, folder: Path) -> None:
    """Download the wheel of a requirement from the indexes that this machine is configured with."""
    from unearth import PackageFinder

    settings = read_settings(os.environ)
    defaults = [source["url"] for source in PackageFinder().sources] if settings.keeps_default else []
    with session(settings) as client:
        finder = PackageFinder(
            client,
            index_urls=[*defaults, *settings.index_urls],
            find_links=[place for place in settings.find_links if "://" in place or Path(place).exists()],
            only_binary=[":all:"],
        )
        best = finder.find_best_match(str(requirement)).best
        assert best is not None, f"no index of this machine has {requirement}"
        got = finder.download_and_unpack(best.link, folder, folder)
    if got.parent != folder:
        shutil.copy(got, folder)


def torch_wheel(folder: Path, version: str = TORCH) -> Path:
    """Write the wheel of the stand-in PyTorch, with its libraries compiled for this machine.

    Its header and its ``__version__`` say which version it is, and nothing else does.
    """
    source = HERE / "torch"
    kept = (path for path in sorted(source.rglob("*")) if path.suffix in (".py", ".h"))
    files = {f"torch/{path.relative_to(source)}": path.read_bytes() for path in kept}
    for name, old, new in (
        ("torch/version.py", TORCH, version),
        ("torch/include/torch/minor.h", f"MINOR {_minor(TORCH)}", f"MINOR {_minor(version)}"),
    ):
        files[name] = files[name].replace(old.encode(), new.encode())
    files["torch/lib/libc10.so"] = library(source / "c10.cpp", "libc10.so")
    files["nvidia/cu13/lib/libcudart.so.13"] = library(source / "cudart.cpp", "libcudart.so.13")
    return write_wheel(folder, "torch", version, "py3-none-linux_x86_64", files)


def _minor(version: str) -> str:
    return version.split(".")[1]


def library(source: Path, soname: str) -> bytes:
    """Compile a shared library and return its bytes."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / soname
        subprocess.run(["c++", "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", made, source], check=True)
        return made.read_bytes()


def static_library(source: Path) -> bytes:
    """Compile a static library and return its bytes."""
    with tempfile.TemporaryDirectory() as folder:
        made, packed = Path(folder) / "it.o", Path(folder) / "it.a"
        subprocess.run(["c++", "-c", "-fPIC", "-o", made, source], check=True)
        subprocess.run(["ar", "rcsD", packed, made], check=True)
        return packed.read_bytes()


def write_wheel(
    folder: Path, name: str, version: str, tag: str, files: Mapping[str, bytes], requires: Iterable[str] = ()
) -> Path:
    """Write a wheel with those files, and METADATA with those requirements."""
    info = f"{name}-{version}.dist-info"
    required = "".join(f"Requires-Dist: {one}\n" for one in requires)
    members = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{required}".encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: stand-in\nRoot-Is-Purelib: false\nTag: {tag}\n".encode(),
    }
    rows = [*(f"{path},sha256={_digest(data)},{len(data)}" for path, data in members.items()), f"{info}/RECORD,,", ""]
    wheel = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in {**members, f"{info}/RECORD": "\n".join(rows).encode()}.items():
            archive.writestr(path, data)
    return wheel


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit whose nvcc is the stand-in; see nvcc/nvcc.py for what it can be told."""

    home: Path

    @property
    def controls(self) -> Path:
        """Where nvcc looks for orders, and notes its calls."""
        return self.home / "controls"

    def order(self, unit: str, **orders: Any) -> None:
        """Tell nvcc what to do when it is called for a unit, ``every`` for all that are not told otherwise."""
        (self.controls / f"{unit}.json").write_text(json.dumps(orders))

    def calls(self) -> dict[str, int]:
        """Return how often nvcc was called for each unit."""
        return dict(Counter((self.controls / "calls").read_text().split()))


_NVCC = """\
#!/bin/sh
case $1 in
--version) echo "nvcc: a stand-in"; echo "Cuda compilation tools, release {release}, V{version}" ;;
--dryrun) echo "stand-in: no steps to show" >&2; exit 1 ;;
*) exec {command} "$@" ;;
esac
"""


def make_toolkit(home: Path, version: str = "13.0.88") -> Toolkit:
    """Make a CUDA_HOME."""
    for name in ("bin", "include", "lib64", "controls"):
        (home / name).mkdir(parents=True)
    nvcc = home / "bin" / "nvcc"
    # -I -S: the build's own Python settings are not for this program.
    command = [sys.executable, "-I", "-S", str(HERE / "nvcc" / "nvcc.py"), str(home)]
    release = version.rpartition(".")[0]
    nvcc.write_text(_NVCC.format(release=release, version=version, command=shlex.join(command)), encoding="utf-8")
    nvcc.chmod(0o755)
    shutil.copy(HERE / "nvcc" / "cuda_runtime.h", home / "include")
    for name in ("crt/host_runtime.h", "cuda_fp16.h", "nv/target"):  # what no unit of the projects includes
        (home / "include" / name).parent.mkdir(exist_ok=True)
        (home / "include" / name).touch()
    (home / "lib64" / "libcudart.so").write_bytes(library(HERE / "torch" / "cudart.cpp", "libcudart.so.13"))
    (home / "lib64" / "libcudart_static.a").write_bytes(static_library(HERE / "torch" / "cudart.cpp"))
    (home / "controls" / "calls").touch()
    return Toolkit(home)


def tinykernels(folder: Path) -> Path:
    """Copy the project without a recipe."""
    return Path(shutil.copytree(HERE / "tinykernels", folder, ignore=shutil.ignore_patterns("__pycache__")))


def shareable(folder: Path) -> Path:
    """Copy the project without a recipe so that a universal wheel of it has a library.

    Its setup lets nvcc say which headers it reads, without which no object is known to be the same for every PyTorch;
    and its module says which PyTorch's header it was compiled with: ``tinykernels._C.torch_minor``.
    """
    _change(tinykernels(folder) / "setup.py", "UNITS =", f"{_SAYING_WHAT_IT_READS}UNITS =")
    made = "PyModule_Create(&module)"
    saying = f'PyObject *made = {made}; PyModule_AddIntConstant(made, "torch_minor", STANDIN_TORCH_MINOR); return made'
    _change(folder / "csrc" / "binding.cpp", f"return {made}", saying)
    return folder


_SAYING_WHAT_IT_READS = 'import os\n\nos.environ.pop("TORCH_EXTENSION_SKIP_NVCC_GEN_DEPENDENCIES", None)\n\n'


def _change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def flash_attn(folder: Path) -> Path:
    """Copy the project with FlashAttention 2's layout, and write its units as upstream's generator does."""
    shutil.copytree(HERE / "flash_attn", folder, ignore=shutil.ignore_patterns("__pycache__"))
    recipe = find_recipe("flash-attn")
    release = recipe.release(FLASH_VERSION)
    assert release is not None and recipe.kernels is not None
    for kind in _ENTRIES:
        for head_dim in release.head_dims:
            for dtype in recipe.kernels.dtypes:
                for causal in (False, True):
                    name = f"flash_{kind}_hdim{head_dim}_{dtype}{'_causal' if causal else ''}_sm80.cu"
                    text = _unit(kind, head_dim, dtype, causal)
                    (folder / "csrc" / "flash_attn" / "src" / name).write_text(text)
    return folder


_ENTRIES = {
    "fwd": ("run_mha_fwd_", "fwd", "forward"),
    "fwd_split": ("run_mha_fwd_splitkv_dispatch", "fwd", "split"),
    "bwd": ("run_mha_bwd_", "bwd", "backward"),
}
_TYPES = {"fp16": "half_t", "bf16": "bfloat16_t"}


def _unit(kind: str, head_dim: int, dtype: str, causal: bool) -> str:
    entry, family, word = _ENTRIES[kind]
    element, is_causal = f"cutlass::{_TYPES[dtype]}", str(causal).lower()
    traits = f"Flash_{family}_kernel_traits<{head_dim}, {element}>"
    return f"""\
#include "kernel.h"
namespace FLASH_NAMESPACE {{
template<> void {entry}<{element}, {head_dim}, {is_causal}>(Flash_{family}_params &params, cudaStream_t) {{
    flash_kernel<{traits}, {is_causal}>(params, "{word}", {head_dim}, {element}::name);
}}
}}  // namespace FLASH_NAMESPACE
"""


def archive(folder: Path, into: Path, name: str) -> Path:
    """Pack a project into ``name``.tar.gz, as an sdist is."""
    into.mkdir(parents=True, exist_ok=True)
    made = into / f"{name}.tar.gz"
    with tarfile.open(made, "w:gz") as bundle:
        bundle.add(folder, name)
    return made


def hostile_archive(path: Path, members: Iterable[tarfile.TarInfo]) -> Path:
    """Write a source archive with a harmless setup.py and, after it, those members."""
    text = b"from setuptools import setup\nsetup(name='evil', version='1.0')\n"
    harmless = tarfile.TarInfo("evil-1.0/setup.py")
    harmless.size = len(text)
    with tarfile.open(path, "w:gz") as bundle:
        bundle.addfile(harmless, io.BytesIO(text))
        for member in members:
            bundle.addfile(member, io.BytesIO(bytes(member.size)))
    return path
