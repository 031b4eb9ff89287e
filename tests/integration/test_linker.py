"""Real libraries and modules, linked by the host compiler: what they need, export and bind to."""

from __future__ import annotations

import ctypes
import io
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from attnforge.elf import Elf
from attnforge.errors import BuildError, HostError
from attnforge.link.linker import Library, Linker
from attnforge.link.partition import ObjectFile, Partition, partition, read_object

CXX = shutil.which("g++")
pytestmark = pytest.mark.skipif(CXX is None, reason="no C++ compiler on PATH")

RUNTIME = 'extern "C" int cudaAnswer() { return 40; }'
KERNELS = """
extern "C" int cudaAnswer();
int helper() { return VALUE; }
int run(int more) { return cudaAnswer() + helper() + more; }
"""
HOST = """
#include <Python.h>
int run(int);
int helper() { return 1000; }
static PyObject *call(PyObject *, PyObject *) { return PyLong_FromLong(run(0)); }
static PyMethodDef methods[] = {{"call", call, METH_NOARGS, ""}, {}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "m", "", -1, methods};
PyMODINIT_FUNC PyInit_m() { return PyModule_Create(&definition); }
"""


@pytest.fixture
def linker(tmp_path: Path) -> Linker:
    toolkit, stub = tmp_path / "toolkit", tmp_path / "stub"
    toolkit.mkdir()
    stub.mkdir()
    compiled = compile_text(tmp_path, "runtime", RUNTIME)
    subprocess.run(["ar", "rcs", toolkit / "libcudart_static.a", compiled], check=True)
    driver = compile_text(tmp_path, "driver", 'extern "C" void cuInit() {}')
    subprocess.run([str(CXX), "-shared", "-Wl,-soname,libcuda.so.1", "-o", stub / "libcuda.so", driver], check=True)
    return Linker(str(CXX), (toolkit,), stub, dict(os.environ), io.StringIO())


def compile_text(folder: Path, name: str, text: str, *options: str) -> Path:
    source, made = folder / f"{name}.cpp", folder / f"{name}.o"
    source.write_text(text)
    include = sysconfig.get_paths()["include"]
    subprocess.run([str(CXX), "-fPIC", f"-I{include}", *options, "-c", source, "-o", made], check=True)
    return made


def parts(folder: Path, value: int = 2) -> Partition:
    kernels = compile_text(folder, f"kernels{value}", KERNELS, f"-DVALUE={value}")
    host = compile_text(folder, "host", HOST)
    return partition(
        [
            read_object(kernels, ["kernels.cu"], cuda=True, neutral=True),
            read_object(host, ["host.cpp"], cuda=False, neutral=False),
        ]
    )


def module(linker: Linker, folder: Path, found: Partition, library: Library | None) -> Path:
    like = folder / "like.so"
    subprocess.run([str(CXX), "-shared", "-o", like, *(one.path for one in found.own)], check=True)
    own = [one.path for one in found.own]
    data = linker.module("m", own, found.crossing, library, like.read_bytes(), folder / "link")
    place = folder / "wheel" / "m" / "torch2.11"
    place.mkdir(parents=True)
    (place / "m.so").write_bytes(data)
    if library is not None:
        shutil.copy(library.path, place.parent / library.path.name)
    return place / "m.so"


def call(module: Path, *before: str) -> str:
    text = "\n".join(
        [
            "import ctypes, importlib.machinery, importlib.util",
            *before,
            f"loader = importlib.machinery.ExtensionFileLoader('m', {str(module)!r})",
            f"spec = importlib.util.spec_from_file_location('m', {str(module)!r}, loader=loader)",
            "print(importlib.util.module_from_spec(spec).call())",
        ]
    )
    return subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True).stdout.strip()


def test_a_module_calls_its_library_and_each_side_keeps_its_own_functions(linker: Linker, tmp_path: Path) -> None:
    found = parts(tmp_path)
    library = linker.library("m", found, tmp_path / "library")
    assert found.crossing == ("_Z3runi",)
    assert call(module(linker, tmp_path, found, library)) == "42"


def test_the_library_needs_the_c_library_alone_and_exports_what_crosses(linker: Linker, tmp_path: Path) -> None:
    library = linker.library("a.m", parts(tmp_path), tmp_path / "library")
    image = Elf.read(library.path.read_bytes())
    assert library.path.name == f"libm-{library.digest}.so" == image.soname
    assert set(image.needed) <= {"libc.so.6", "libstdc++.so.6", "libm.so.6", "libgcc_s.so.1"}
    names = {"_Z3runi", f"_Z3runi.{library.digest}", "_Z6helperv", "cudaAnswer"}
    assert image.exports(names) == {f"_Z3runi.{library.digest}"}


def test_a_module_exports_what_python_calls_and_finds_its_library_beside_it(linker: Linker, tmp_path: Path) -> None:
    found = parts(tmp_path)
    library = linker.library("m", found, tmp_path / "library")
    image = Elf.read(module(linker, tmp_path, found, library).read_bytes())
    assert image.needed[0] == library.path.name
    assert image.rpath == ("$ORIGIN/..",)
    assert image.exports({"PyInit_m", "_Z3runi", "_Z6helperv"}) == {"PyInit_m"}


def test_another_copy_in_the_process_is_not_bound_to(linker: Linker, tmp_path: Path) -> None:
    """A plain module of the package, another version's library and kernels, all open to every search."""
    found = parts(tmp_path)
    library = linker.library("m", found, tmp_path / "library")
    made = module(linker, tmp_path, found, library)
    plain, other = tmp_path / "plain.so", tmp_path / "other"
    foreign = compile_text(tmp_path, "foreign", KERNELS, "-DVALUE=900")
    runtime = compile_text(tmp_path, "foreign_runtime", RUNTIME.replace("40", "5000"))
    subprocess.run([str(CXX), "-shared", "-o", plain, foreign, runtime], check=True)
    other.mkdir()
    second = linker.library("m", parts(other, value=70), other / "library")
    before = [f"ctypes.CDLL({str(path)!r}, ctypes.RTLD_GLOBAL)" for path in (plain, second.path)]
    assert call(made, *before) == "42"
    assert second.digest != library.digest


def test_the_other_way_round_a_plain_module_is_not_bound_to_the_library(linker: Linker, tmp_path: Path) -> None:
    library = linker.library("m", parts(tmp_path), tmp_path / "library")
    plain = tmp_path / "plain.so"
    foreign = compile_text(tmp_path, "foreign", KERNELS, "-DVALUE=900")
    runtime = compile_text(tmp_path, "foreign_runtime", RUNTIME.replace("40", "5000"))
    subprocess.run([str(CXX), "-shared", "-o", plain, foreign, runtime], check=True)
    text = (
        f"import ctypes; ctypes.CDLL({str(library.path)!r}, ctypes.RTLD_GLOBAL); "
        f"print(ctypes.CDLL({str(plain)!r})['_Z3runi'](0))"
    )
    done = subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "5900"


def test_the_same_objects_give_the_same_bytes_wherever_they_lie(linker: Linker, tmp_path: Path) -> None:
    first = linker.library("m", parts(tmp_path), tmp_path / "library")
    elsewhere = tmp_path / "elsewhere, with another name"
    elsewhere.mkdir()
    second = linker.library("m", parts(elsewhere), elsewhere / "library")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.path.name == second.path.name


def test_other_kernels_make_a_library_of_another_name(linker: Linker, tmp_path: Path) -> None:
    first = linker.library("m", parts(tmp_path), tmp_path / "library")
    assert linker.library("m", parts(tmp_path, value=3), tmp_path / "library").path.name != first.path.name


def test_a_library_that_would_need_something_else_is_not_made(linker: Linker, tmp_path: Path) -> None:
    wanting = compile_text(tmp_path, "wanting", "int missing(); int run(int) { return missing(); }")
    host = compile_text(tmp_path, "host", HOST)
    found = partition(
        [
            read_object(wanting, ["wanting.cu"], cuda=True, neutral=True),
            read_object(host, ["host.cpp"], cuda=False, neutral=False),
        ]
    )
    with pytest.raises(BuildError, match="kernels library of m") as raised:
        linker.library("m", found, tmp_path / "library")
    assert "missing" in raised.value.why


def test_a_toolkit_without_the_static_runtime_is_told_of(linker: Linker, tmp_path: Path) -> None:
    (linker.libraries[0] / "libcudart_static.a").unlink()
    with pytest.raises(HostError, match="libcudart_static") as raised:
        linker.library("m", parts(tmp_path), tmp_path / "library")
    assert "cudart" in raised.value.hint


def test_a_launcher_that_calls_the_driver_needs_the_drivers_library(linker: Linker, tmp_path: Path) -> None:
    calls = 'extern "C" void cuInit(); int run(int) { cuInit(); return 1; }'
    objects: list[ObjectFile] = [
        read_object(compile_text(tmp_path, "calls", calls), ["calls.cu"], cuda=True, neutral=True),
        read_object(compile_text(tmp_path, "host", HOST), ["host.cpp"], cuda=False, neutral=False),
    ]
    library = linker.library("m", partition(objects), tmp_path / "library")
    assert "libcuda.so.1" in Elf.read(library.path.read_bytes()).needed


def test_a_module_of_one_piece_is_linked_as_it_is(linker: Linker, tmp_path: Path) -> None:
    found = parts(tmp_path)
    runtime = read_object(compile_text(tmp_path, "rt", RUNTIME), ["rt.cpp"], cuda=False, neutral=False)
    kernels = compile_text(tmp_path, "whole", KERNELS.replace("int helper()", "static int helper()"), "-DVALUE=2")
    host = read_object(kernels, ["whole.cu"], cuda=True, neutral=False)
    whole = Partition((), (*found.own, host, runtime), ())
    made = module(linker, tmp_path, whole, None)
    assert call(made) == "42"
    assert Elf.read(made.read_bytes()).rpath == ()
    assert ctypes.sizeof(ctypes.c_void_p) == 8
