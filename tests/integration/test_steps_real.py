"""nvcc's steps, run one by one in folders and orders of our own: what they write, and the keys of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from attnforge.compile.nvcc.dryrun import dryrun_argv
from attnforge.compile.nvcc.prefixes import Prefixes
from attnforge.compile.nvcc.steps import Step, Tool, dissect, folders, is_whole, outputs
from attnforge.compile.reuse.keys import step_key
from attnforge.compile.reuse.objects import Cost
from attnforge.compile.reuse.recall import Recall
from attnforge.compile.reuse.tools import Tools
from attnforge.model.graph import Language, Unit

NVCC = shutil.which("nvcc")

pytestmark = [pytest.mark.compile, pytest.mark.skipif(NVCC is None, reason="no nvcc on PATH")]

SOURCE = """
#include "shape.h"
#include <cassert>
static __constant__ float table[4];
static __global__ void local(float* x) { assert(x); x[0] = table[1] + powf(x[1], shape::exponent); }
namespace { __device__ int hidden; }
template <class T> __global__ void scale(T* x, T f) { x[threadIdx.x] *= f; if (f < 0) hidden++; }
const char* where() { return __FILE__; }
int run(float* x) { scale<float><<<1, 32>>>(x, 2.f); local<<<1, 1>>>(x); return (int)cudaGetLastError(); }
"""

# Two architectures and PTX, as wheels hold them; the last one's names are the host's.
SM_80 = ("-gencode", "arch=compute_80,code=sm_80")
SM_90A = ("-gencode", "arch=compute_90a,code=sm_90a")
PTX_90 = ("-gencode", "arch=compute_90,code=compute_90")


@dataclass
class Made:
    """A call that was run by its steps."""

    steps: dict[str, Step]
    keys: dict[str, str | None]
    object: Path
    work: Path

    def files(self) -> dict[str, bytes]:
        """All that the steps have made, but for the names of what they read."""
        paths = [path for path in self.work.rglob("*") if path.is_file() and path.suffix != ".d"]
        return {str(path.relative_to(self.work)): path.read_bytes() for path in paths}


class Project:
    """A source and a header, in a folder of its own."""

    def __init__(self, folder: Path, exponent: str = "3.f") -> None:
        self.folder, self.source, self.site = folder, folder / "source", folder / "env/site-packages/include"
        self.source.mkdir(parents=True)
        self.site.mkdir(parents=True)
        (self.source / "tiny.cu").write_text(SOURCE)
        (self.site / "shape.h").write_text(f"namespace shape {{ constexpr float exponent = {exponent}; }}\n")
        self.prefixes = Prefixes({str(self.source): "source", str(self.site): "site-packages"})

    def unit(self, *targets: str) -> Unit:
        assert NVCC
        output = str(self.folder / "tiny.o")
        maps = ("-Xcompiler", f"-ffile-prefix-map={self.source}=source")
        argv = (NVCC, "-c", f"{self.source}/tiny.cu", "-o", output, "-O3", f"-I{self.source}", f"-I{self.site}", *maps)
        return Unit(output, (f"{self.source}/tiny.cu",), (*argv, *targets), str(self.folder), Language.CUDA)

    def make(self, *targets: str, order: Callable[[list[Step]], list[Step]] = list, work: str = "work") -> Made:
        folder = self.folder / work
        folder.mkdir()
        (folder / "id").write_text("_aabbccdd_7_tiny_cu_11223344_0")
        argv = dryrun_argv(self.unit(*targets).argv)
        listing = subprocess.run(argv, cwd=self.folder, capture_output=True, text=True, check=True).stderr
        made = folder / "out" / "tiny.o"
        settings, steps = dissect(listing, str(folder), str(folder / "id"), str(made), self.prefixes)
        for name in folders(steps):
            Path(name).mkdir(parents=True, exist_ok=True)
        return Made(
            {step.label: step for step in steps}, self._run(order([*steps]), {**os.environ, **settings}), made, folder
        )

    def _run(self, waiting: list[Step], environment: Mapping[str, str]) -> dict[str, str | None]:
        keys: dict[str, str | None] = {}
        while waiting:
            step = next(step for step in waiting if keys.keys() >= set(step.needs))
            waiting.remove(step)
            keys[step.label] = step_key(step, environment)
            subprocess.run(step.argv, cwd=step.cwd or self.folder, env=environment, check=True)
            if step.tool is Tool.PREPROCESS:
                path = Path(step.writes[0])
                path.write_bytes(self.prefixes.settle_markers(path.read_bytes()))
        return keys


def backwards(steps: list[Step]) -> list[Step]:
    return steps[::-1]


def test_nothing_depends_on_the_folder_or_on_the_order(tmp_path: Path) -> None:
    here = Project(tmp_path / "here").make(*SM_80, *SM_90A, *PTX_90)
    there = Project(tmp_path / "far/away").make(*SM_80, *SM_90A, *PTX_90, order=backwards)
    assert here.files() == there.files()
    assert here.keys == there.keys
    for path, data in here.files().items():
        assert str(tmp_path).encode() not in data, path
    assert all(path in here.files() for path in ("out/tiny.o", "compute_80/tiny.cubin", "tiny.ptx"))


def test_an_architecture_is_the_same_alone_and_among_others(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    alone, among = project.make(*SM_90A), project.make(*SM_80, *SM_90A, *PTX_90, work="among")
    for label in ("cudafe++", "cicc sm_90a", "ptxas sm_90a"):
        assert alone.keys[label] == among.keys[label] is not None
        one, other = outputs(alone.steps[label]), outputs(among.steps[label])
        assert {role: Path(path).read_bytes() for role, path in one.items()} == {
            role: Path(path).read_bytes() for role, path in other.items()
        }


def test_the_machine_code_is_nvccs_own(tmp_path: Path) -> None:
    # Names of internal linkage hold a module id of nvcc's own making: this source has none.
    project = Project(tmp_path / "project")
    (project.source / "tiny.cu").write_text(
        '#include "shape.h"\n__global__ void k(float* x) { *x = powf(*x, shape::exponent); }\n'
    )
    made = project.make(*SM_90A)
    unit = project.unit(*SM_90A)
    own = project.folder / "own.cubin"
    argv = [word for word in unit.argv if word != "-c"]
    argv[argv.index(unit.output)] = str(own)
    subprocess.run([*argv, "-cubin"], cwd=project.folder, check=True)
    assert own.read_bytes() == Path(outputs(made.steps["ptxas sm_90a"])["output"]).read_bytes()
    assert is_whole(own)


@pytest.mark.parametrize("option", ["--orig_src_file_name", "--orig_src_path_name"])
@pytest.mark.parametrize("label", ["cudafe++", "cicc sm_90a"])
def test_the_name_of_the_source_is_a_name_only(tmp_path: Path, label: str, option: str) -> None:
    made = Project(tmp_path / "project").make(*SM_90A)
    before = made.files()
    step = made.steps[label]
    argv = list(step.argv)
    argv[argv.index(option) + 1] = "/no/such/folder/other.cu"
    environment = {**os.environ, "PATH": f"{Path(_cicc(made)).parents[2] / 'bin'}:{os.environ['PATH']}"}
    subprocess.run(argv, cwd=step.cwd, env=environment, check=True)
    assert made.files() == before


def _cicc(made: Made) -> str:
    return os.path.normpath(made.steps["cicc sm_90a"].argv[0])


def test_a_changed_header_has_other_keys(tmp_path: Path) -> None:
    one = Project(tmp_path / "one").make(*SM_90A)
    other = Project(tmp_path / "other", exponent="4.f").make(*SM_90A)
    for label in ("cicc sm_90a", "ptxas sm_90a"):
        assert None is not one.keys[label] != other.keys[label]


class Store(dict[str, dict[str, bytes]]):
    """A store in memory."""

    def put(self, key: str, outputs: Mapping[str, bytes]) -> None:
        self[key] = dict(outputs)


def depfiles(steps: Sequence[Step]) -> list[Path]:
    return [Path(step.depfile) for step in steps if step.depfile]


def test_whole_objects_are_recalled(tmp_path: Path) -> None:
    store, tools = Store(), Tools()
    here, there = Project(tmp_path / "here"), Project(tmp_path / "there")
    made = here.make(*SM_90A)
    recall = Recall(store, here.prefixes, tools)
    cost = Cost(1.0, 1.0, 1)
    files = depfiles(list(made.steps.values()))
    recall.keep(here.unit(*SM_90A), (), os.environ, files, made.object.read_bytes(), cost)
    manifest = next(entry["manifest"] for entry in store.values() if "manifest" in entry)
    for name in (b'"source/tiny.cu"', b'"site-packages/shape.h"', b"cuda_runtime.h", b"crt/host_runtime.h"):
        assert name in manifest
    assert str(tmp_path).encode() not in manifest
    # Another folder and another virtual environment with the same headers.
    elsewhere = Recall(store, there.prefixes, tools)
    found = elsewhere.find(there.unit(*SM_90A), (), os.environ)
    assert found is not None
    assert found.object == made.object.read_bytes() == there.make(*SM_90A).object.read_bytes()
    assert elsewhere.find(there.unit(*SM_80), (), os.environ) is None
    # A header that is found before the other one.
    (there.source / "shape.h").write_text("namespace shape { constexpr float exponent = 5.f; }\n")
    assert elsewhere.find(there.unit(*SM_90A), (), os.environ) is None
    (there.source / "shape.h").unlink()
    assert elsewhere.find(there.unit(*SM_90A), (), os.environ) is not None
    (there.site / "shape.h").write_text("namespace shape { constexpr float exponent = 5.f; }\n")
    assert elsewhere.find(there.unit(*SM_90A), (), os.environ) is None
