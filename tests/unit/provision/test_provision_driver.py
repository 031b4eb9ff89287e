"""A library to link against in place of the driver's: the toolkit's own stub, or one that the C compiler makes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from attnforge import process
from attnforge.elf import Elf
from attnforge.errors import HostError
from attnforge.process import Command, Outcome
from attnforge.provision.driver import provide_driver_stub

COMPILER = shutil.which("g++") or shutil.which("c++") or ""
needs_compiler = pytest.mark.skipif(not COMPILER, reason="no C++ compiler on this machine")

# As cuda.h has it: macros rename functions, some stand over several lines, and callbacks are no functions.
HEADER = """\
#define CUDAAPI
#define cuMemAlloc cuMemAlloc_v2
typedef int CUresult;
typedef CUresult (CUDAAPI *cuCallback)(int);
CUresult CUDAAPI cuInit(unsigned int flags);
CUresult CUDAAPI cuMemAlloc(void **pointer, unsigned long bytes);
CUresult CUDAAPI cuTensorMapEncodeTiled(
    void *map, int rank);
void helper(void);
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "cuda" / "include").mkdir(parents=True)
    (tmp_path / "cuda" / "include" / "cuda.h").write_text(HEADER)
    return tmp_path / "cuda"


def provide(home: Path, folder: Path) -> Path:
    return provide_driver_stub(home, COMPILER, folder, process.run, {"PATH": os.defpath})


def never(command: Command, log: object = None) -> Outcome:
    raise AssertionError(f"nothing has to run: {command}")


@pytest.mark.parametrize("place", ["lib64/stubs", "lib/stubs", "targets/x86_64-linux/lib/stubs"])
def test_the_toolkits_own_is_taken_where_there_is_one(home: Path, tmp_path: Path, place: str) -> None:
    own = home / place / "libcuda.so"
    own.parent.mkdir(parents=True)
    own.write_text("nvidia's")
    folder = provide_driver_stub(home, "g++", tmp_path / "stubs", never, {})
    assert (folder / "libcuda.so").resolve() == own
    # Another toolkit, or the same once more.
    assert provide_driver_stub(home, "g++", tmp_path / "stubs", never, {}) == folder


@needs_compiler
def test_ours_exports_what_the_header_declares_under_the_drivers_name(home: Path, tmp_path: Path) -> None:
    library = provide(home, tmp_path / "stubs") / "libcuda.so"
    elf = Elf.read(library.read_bytes())
    assert elf.soname == "libcuda.so.1"
    declared = {"cuInit", "cuMemAlloc_v2", "cuTensorMapEncodeTiled"}
    assert elf.exports(declared | {"cuMemAlloc", "cuCallback", "helper"}) == declared
    assert elf.needed == ()


@needs_compiler
def test_what_is_linked_against_it_asks_for_the_driver(home: Path, tmp_path: Path) -> None:
    source = tmp_path / "module.c"
    source.write_text("int cuInit(unsigned); int run(void) { return cuInit(0); }\n")
    words = [COMPILER, "-x", "c", "-shared", "-fPIC", "-Wl,--no-undefined", str(source), "-o", "module.so", "-lcuda"]
    env = {"PATH": os.environ["PATH"]}
    without = subprocess.run(words, cwd=tmp_path, env={**env, "LIBRARY_PATH": str(tmp_path)}, capture_output=True)
    folder = provide(home, tmp_path / "stubs")
    done = subprocess.run(words, cwd=tmp_path, env={**env, "LIBRARY_PATH": str(folder)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "libcuda.so.1" in Elf.read((tmp_path / "module.so").read_bytes()).needed
    # Only this environment has it: a machine with NVIDIA's driver may have a libcuda.so of its own.
    assert without.returncode != 0 or list(Path("/usr/lib").rglob("libcuda.so"))


@needs_compiler
def test_a_toolkit_without_the_header_has_an_empty_one(tmp_path: Path) -> None:
    library = provide(tmp_path / "no toolkit", tmp_path / "stubs") / "libcuda.so"
    assert Elf.read(library.read_bytes()).soname == "libcuda.so.1"


def test_a_compiler_that_fails_is_told(home: Path, tmp_path: Path) -> None:
    def broken(command: Command, log: object = None) -> Outcome:
        return Outcome(1, "cc1plus: out of memory")

    with pytest.raises(HostError, match="could not be made") as caught:
        provide_driver_stub(home, "/usr/bin/g++", tmp_path / "stubs", broken, {})
    assert "out of memory" in caught.value.why
    assert not (tmp_path / "stubs" / "libcuda.so").exists()
