"""The audit against what real compilers emit, in place of what the unit tests' own writers do."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from attnforge.audit.device import read_device_code
from attnforge.audit.fatbin import Kind, read_fatbin
from attnforge.audit.wheel import audit_wheel
from attnforge.elf import Elf
from attnforge.model.audit import AuditReport, Expected, KernelCount
from attnforge.model.finding import Severity
from attnforge.model.kernels import Kernels
from attnforge.model.recipe import Recipe

pytestmark = pytest.mark.compile

MODULE = "demo_cuda.cpython-311-x86_64-linux-gnu.so"
INFO = "demo-1.0.dist-info"

KERNELS = """
struct half_t { unsigned short bits; };
struct bfloat16_t { unsigned short bits; };
template <int D, typename T> __global__ void demo_fwd(T *out, int n) {
  int i = blockIdx.x * D + threadIdx.x;
  if (i < n) out[i].bits += 1;
}
template __global__ void demo_fwd<64, half_t>(half_t *, int);
template __global__ void demo_fwd<128, half_t>(half_t *, int);
template __global__ void demo_fwd<128, bfloat16_t>(bfloat16_t *, int);
"""

HOST = """
#include <stdexcept>
#include <string>
namespace c10 { namespace cuda { void SetDevice(signed char device, bool force); } }
extern "C" void *PyModule_Create2(void *, int);
extern "C" void *PyInit_demo_cuda() {
  if (std::to_string(42) != "42") throw std::runtime_error("arithmetic");
  c10::cuda::SetDevice(0, true);
  return PyModule_Create2(nullptr, 1013);
}
"""


def _nvcc() -> str:
    found = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if found is None:
        pytest.skip("no nvcc on PATH or in the toolkit's usual folder")
    return found


def _gxx() -> str:
    found = shutil.which("g++") or shutil.which("c++")
    if found is None:
        pytest.skip("no C++ compiler on PATH")
    return found


def _run(*argv: str, cwd: Path) -> None:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit")
    (path / "kernels.cu").write_text(KERNELS)
    (path / "host.cpp").write_text(HOST)
    return path


@pytest.fixture(scope="module")
def device(folder: Path) -> Path:
    """Kernels as real objects carry them: several architectures, exact ones among them, and PTX."""
    codes = ["80:sm_80", "90:sm_90", "90a:sm_90a", "100a:sm_100a", "120:sm_120", "90a:compute_90a", "120:compute_120"]
    flags = [f"-gencode=arch=compute_{arch},code={code}" for arch, _, code in (c.partition(":") for c in codes)]
    _run(_nvcc(), "-c", "-Xcompiler", "-fPIC", *flags, "kernels.cu", "-o", "kernels.o", cwd=folder)
    return folder / "kernels.o"


@pytest.fixture(scope="module")
def host(folder: Path) -> Path:
    _run(_gxx(), "-c", "-O1", "-fPIC", "host.cpp", "-o", "host.o", cwd=folder)
    return folder / "host.o"


@pytest.fixture(scope="module")
def module(folder: Path, device: Path, host: Path) -> bytes:
    """An extension module, linked without PyTorch and without the CUDA runtime, as `-shared` allows."""
    _run(_gxx(), "-shared", str(host), str(device), "-Wl,-rpath,/home/builder/lib", "-o", "demo.so", cwd=folder)
    return (folder / "demo.so").read_bytes()


@pytest.fixture(scope="module")
def site(folder: Path) -> Path:
    """A PyTorch of two libraries, compiled: what the module needs, the other signature of SetDevice left out."""
    lib = folder / "site" / "torch" / "lib"
    lib.mkdir(parents=True)
    (folder / "site" / "torch" / "version.py").write_text("__version__ = '2.11.0+cu130'\n")
    symbols = ["__cudaRegisterFatBinary", "__cudaRegisterFatBinaryEnd", "__cudaUnregisterFatBinary"]
    symbols += ["__cudaRegisterFunction", "__cudaPushCallConfiguration", "__cudaPopCallConfiguration"]
    symbols += ["cudaLaunchKernel", "__cudaGetKernel", "__cudaLaunchKernel", "__cudaInitModule", "cudaGetKernel"]
    runtime = "\n".join(f'extern "C" int {symbol}() {{ return 0; }}' for symbol in symbols)
    (folder / "runtime.cpp").write_text(runtime)
    (folder / "c10.cpp").write_text("namespace c10 { namespace cuda { void SetDevice(signed char, bool) {} } }")
    for source, library in (("runtime.cpp", "libtorch_global_deps.so"), ("c10.cpp", "libc10.so")):
        _run(_gxx(), "-shared", "-fPIC", source, "-o", str(lib / library), cwd=folder)
    return folder / "site"


def _wheel(folder: Path, module: bytes) -> Path:
    tag = "cp311-cp311-linux_x86_64"
    files = {
        MODULE: module,
        f"{INFO}/METADATA": b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n",
        f"{INFO}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n".encode(),
    }
    rows = [f"{path},sha256={_digest(data)},{len(data)}" for path, data in files.items()]
    path = folder / f"demo-1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**files, f"{INFO}/RECORD": "\n".join([*rows, f"{INFO}/RECORD,,"]).encode()}.items():
            archive.writestr(name, data)
    return path


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _errors(report: AuditReport) -> list[str]:
    return [finding.code for finding in report.findings if finding.severity is Severity.ERROR]


RECIPE = Recipe(
    name="demo",
    title="demo",
    summary="demo",
    kernels=Kernels(
        pattern="(?P<kind>k)(?P<head_dim>h)(?P<dtype>d)",
        kinds={},
        dtypes=("fp16", "bf16"),
        symbol=r"demo_fwdILi(?P<head_dim>\d+)E\d+(?P<dtype>half_t|bfloat16_t)",
        symbol_dtypes={"half_t": "fp16", "bfloat16_t": "bf16"},
    ),
)


def test_a_real_module_is_read_right(tmp_path: Path, module: bytes, site: Path) -> None:
    planned = ("sm_80", "sm_90", "sm_90a", "sm_100a", "sm_120")
    expected = Expected(architectures=planned, modules=("demo_cuda",), python="cp311")
    report = audit_wheel(_wheel(tmp_path, module), torch_site=site, recipe=RECIPE, expected=expected)
    (found,) = report.modules
    assert found.architectures == planned
    assert found.ptx == ("compute_90a", "compute_120")
    assert found.rpath == ("/home/builder/lib",)
    assert found.size == len(module)
    assert found.device_functions == 3
    assert found.kernels == (
        KernelCount(head_dim=64, dtype="fp16", count=1),
        KernelCount(head_dim=128, dtype="bf16", count=1),
        KernelCount(head_dim=128, dtype="fp16", count=1),
    )
    assert report.glibc
    assert report.glibcxx
    assert report.platform_tag.startswith("manylinux_2_")
    assert _errors(report) == []


def test_a_symbol_that_pytorch_has_with_another_signature(tmp_path: Path, module: bytes, site: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(site, other)
    source = tmp_path / "other.cpp"
    source.write_text("namespace c10 { namespace cuda { void SetDevice(signed char) {} } }")
    _run(_gxx(), "-shared", "-fPIC", str(source), "-o", str(other / "torch/lib/libc10.so"), cwd=tmp_path)
    report = audit_wheel(_wheel(tmp_path, module), torch_site=other)
    assert _errors(report) == ["undefined-symbol"]
    assert report.exit_code == 5
    assert len(report.undefined) == 1
    assert "/723" in next(finding.link for finding in report.findings if finding.code == "undefined-symbol")


def test_a_module_for_other_gpus_than_planned(tmp_path: Path, module: bytes, site: Path) -> None:
    report = audit_wheel(_wheel(tmp_path, module), torch_site=site, expected=Expected(architectures=("sm_90a",)))
    assert _errors(report) == ["planned-architectures"]


@pytest.mark.parametrize("mode", ["none", "speed", "balance", "size"])
def test_every_compression_of_nvcc(mode: str, folder: Path, device: Path, tmp_path: Path) -> None:
    """The images are the same, however they are packed. (Older compilers have no such option.)"""
    nvcc = _nvcc()
    if "--compress-mode" not in subprocess.run([nvcc, "--help"], capture_output=True, text=True, check=True).stdout:
        pytest.skip("this nvcc has no --compress-mode")
    flags = ["-gencode=arch=compute_90a,code=[sm_90a,compute_90a]", f"--compress-mode={mode}"]
    _run(nvcc, "-fatbin", *flags, str(folder / "kernels.cu"), "-o", "packed.fatbin", cwd=tmp_path)
    fatbin = read_fatbin((tmp_path / "packed.fatbin").read_bytes())
    assert fatbin.damaged == 0
    assert {(entry.kind, entry.number, entry.suffix) for entry in fatbin.entries} == {
        (Kind.ELF, 90, "a"),
        (Kind.PTX, 90, "a"),
    }
    images = {entry.kind: entry.payload() for entry in fatbin.entries}
    assert b".target sm_90a" in images[Kind.PTX]
    assert {symbol.name for symbol in Elf.read(images[Kind.ELF]).functions()} == set(
        read_device_code(Elf.read(device.read_bytes())).functions
    )


def test_another_reader_agrees_on_the_host_part(folder: Path, module: bytes) -> None:
    ours = Elf.read(module)
    with (folder / "demo.so").open("rb") as file:
        other: Any = ELFFile(file)
        tags = other.get_section_by_name(".dynamic").iter_tags()
        needed = tuple(tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED")
        symbols = list(other.get_section_by_name(".dynsym").iter_symbols())
    assert ours.needed == needed
    undefined = [s.name for s in symbols if s["st_shndx"] == "SHN_UNDEF" and s["st_info"]["bind"] == "STB_GLOBAL"]
    assert [reference.symbol for reference in ours.references()] == undefined
    defined = {s.name for s in symbols if s["st_shndx"] != "SHN_UNDEF" and s["st_info"]["bind"] != "STB_LOCAL"}
    assert ours.exports({*defined, "absent"}) == defined
