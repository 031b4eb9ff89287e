"""The comparison of wheels on what real compilers emit."""

from __future__ import annotations

import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from attnforge.audit.compare import compare_wheels
from attnforge.audit.device import find_fatbin
from attnforge.audit.fatbin import Kind
from attnforge.audit.machinecode import Shape, read_functions
from attnforge.elf import Elf
from attnforge.model.comparison import Comparison

pytestmark = pytest.mark.compile

MODULE = "demo_cuda.cpython-311-x86_64-linux-gnu.so"

# One kernel of each sort that matters: of internal linkage with shared memory, with a stack frame and outlined
# functions, one that prints, and a plain template.
KERNELS = """
#include <cstdio>
__constant__ float table[16];
static __device__ float bias = 2.5f;
namespace {
__global__ void reverse(float *p) {
  __shared__ float kept[64];
  kept[threadIdx.x] = p[threadIdx.x];
  __syncthreads();
  p[threadIdx.x] = kept[63 - threadIdx.x] + bias + table[threadIdx.x & 15];
}
}
static __device__ __noinline__ float scale(float x) { return x * 5.0f + bias; }
__global__ void gather(float *p, int i) {
  float kept[32];
  for (int k = 0; k < 32; k++) kept[k] = p[k];
  kept[i] = scale(p[i]);
  p[threadIdx.x] = kept[i ^ 1] + kept[i];
  if (i == 77) printf("at %d\\n", i);
}
"""
PLAIN = """
template <int D> __global__ void add(float *p) {
  for (int k = 0; k < 24; k++) p[threadIdx.x + k * D] += p[k] * p[k + D];
}
template __global__ void add<64>(float *);
template __global__ void add<128>(float *);
"""
HOST = "void HOST(float *p) { reverse<<<1, 64>>>(p); gather<<<1, 64>>>(p, 3); }\n"

Compile = Callable[..., Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compile units and put the objects into a wheel; each unit lies in a folder of its own."""
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is None:
        pytest.skip("no nvcc on PATH or in the toolkit's usual folder")

    def run(*flags: str, **units: str) -> Path:
        folder = tmp_path_factory.mktemp("wheel")
        path = folder / "demo-1.0-cp311-cp311-linux_x86_64.whl"
        with zipfile.ZipFile(path, "w") as archive:
            objects = [_compile(nvcc, folder, name, text, flags) for name, text in units.items()]
            archive.writestr(MODULE, _linked(folder, objects))
        return path

    return run


def _compile(nvcc: str, folder: Path, name: str, text: str, flags: tuple[str, ...]) -> Path:
    (folder / f"{name}.cu").write_text(text)
    options = ("-arch=sm_90a", f"-DHOST=launch_{name}", "-Xcompiler=-fPIC", *flags)
    done = subprocess.run(
        [nvcc, "-c", *options, f"{name}.cu", "-o", f"{name}.o"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / f"{name}.log").write_text(done.stdout + done.stderr)
    return folder / f"{name}.o"


def _linked(folder: Path, objects: list[Path]) -> bytes:
    if len(objects) == 1:
        return objects[0].read_bytes()
    subprocess.run(["ld", "-r", *map(str, objects), "-o", str(folder / "all.o")], check=True)
    return (folder / "all.o").read_bytes()


@pytest.fixture(scope="module")
def plain(build: Compile) -> Path:
    return build("-Xptxas=-v", first=KERNELS + PLAIN + HOST)


def _only(report: Comparison) -> dict[str, set[str]]:
    """Return what differs, by the name of the kernel."""
    found: dict[str, set[str]] = {}
    for difference in report.modules[0].different:
        # A function that was outlined has its caller's name before its own.
        name = re.findall(r"reverse|gather|scale|add<\d+>", difference.function)[-1]
        values = {key: getattr(difference, key) for key in type(difference).model_fields}
        changed = {key for key, value in values.items() if isinstance(value, tuple) and value[0] != value[1]}
        found[name] = changed | {key for key, value in values.items() if value == "different"}
    return found


def test_the_same_unit_under_another_name_in_another_folder(build: Compile, plain: Path) -> None:
    other = build(another_name=KERNELS + PLAIN + HOST)
    symbols = [set(_shapes(wheel)) for wheel in (plain, other)]
    assert symbols[0] != symbols[1], "the module id did not change: nothing was tested"
    report = compare_wheels(plain, other)
    assert (report.verdict, report.modules[0].same) == ("same", len(symbols[0]))


def test_a_unit_taken_apart(build: Compile, plain: Path) -> None:
    """Its kernels stay the same without what they don't use."""
    assert compare_wheels(plain, build(one=KERNELS + HOST, two=PLAIN)).verdict == "same"


def test_another_constant_in_the_source(build: Compile, plain: Path) -> None:
    report = compare_wheels(plain, build(first=(KERNELS + PLAIN + HOST).replace("5.0f", "6.0f")))
    assert report.verdict == "different"
    assert _only(report) == {"gather": {"code"}, "scale": {"code"}}


def test_another_text_to_print(build: Compile, plain: Path) -> None:
    report = compare_wheels(plain, build(first=(KERNELS + PLAIN + HOST).replace("at %d", "on %d")))
    assert report.exit_code == 5
    # The string's address is in a bank that all functions of the unit share.
    assert all(parts == {"constants"} for parts in _only(report).values())
    assert "gather" in _only(report)


def test_fewer_registers(build: Compile, plain: Path) -> None:
    report = compare_wheels(plain, build("-maxrregcount=24", first=KERNELS + PLAIN + HOST))
    assert report.exit_code == 5
    assert {"code", "registers"} <= _only(report)["gather"]


def test_ptxas_agrees_on_the_resources(plain: Path) -> None:
    log = (plain.parent / "first.log").read_text()
    told = re.findall(
        r"Function properties for (\S+)\n\s+(\d+) bytes stack frame.*\n.*Used (\d+) registers(.*)", log, re.MULTILINE
    )
    assert len(told) == 4
    shapes = _shapes(plain)
    for symbol, frame, registers, rest in told:
        shape = shapes[symbol]
        shared = re.search(r"(\d+) bytes smem", rest)
        # ptxas leaves out what the launch keeps for itself on compute capability 9.0: 1 KiB.
        assert (shape.frame, shape.registers) == (int(frame), int(registers))
        assert shape.shared in ((int(shared[1]), int(shared[1]) + 1024) if shared else (0,))


def _shapes(wheel: Path) -> dict[str, Shape]:
    with zipfile.ZipFile(wheel) as archive:
        fatbin = find_fatbin(Elf.read(archive.read(MODULE)))
    assert fatbin
    images = [entry for entry in fatbin.entries if entry.kind == Kind.ELF]
    return {f.symbol: f.shape for entry in images for f in read_functions(entry.payload(), entry.number)}
