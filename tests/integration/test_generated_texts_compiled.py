"""The texts of C++ that attnforge generates, as a compiler sees them: each needs nothing before it."""
# ruff: noqa: E501 - C++ inside

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attnforge.model.graph import CompileGraph, Language, Unit
from attnforge.model.plan import Resolution
from attnforge.model.target import Architecture
from attnforge.recipes.catalogue import find_recipe
from attnforge.recipes.flash_attn import adapter as two
from attnforge.recipes.flash_attn import kernels, neutral
from attnforge.recipes.flash_attn.host import lean_host
from attnforge.recipes.flash_attn.variants import left_out
from attnforge.recipes.flash_attn_3 import adapter as three
from standins.texts import LAYOUT, Plans, host_text, plans

CXX = shutil.which("g++")
pytestmark = [pytest.mark.compile, pytest.mark.skipif(CXX is None, reason="no C++ compiler on PATH")]

FORMS = pytest.mark.parametrize("universal", [False, True], ids=["plain", "universal"])

# Headers that declare no more than they have to.
STUBS = {
    "cuda_runtime.h": """
        typedef struct CUstream_st *cudaStream_t; typedef int cudaError_t; enum { cudaSuccess = 0 };
        const char *cudaGetErrorString(cudaError_t); cudaError_t cudaGetLastError();
        struct cudaDeviceProp { int major, minor; }; cudaError_t cudaGetDevice(int *);
        cudaError_t cudaGetDeviceProperties(cudaDeviceProp *, int);
        #define __host__
        #define __device__
        #define __forceinline__ inline
    """,
    "static_switch.h": "#pragma once\n",
    "flash.h": """
        namespace flash {
        struct Flash_fwd_params {
            void *knew_ptr, *alibi_slopes_ptr; int *block_table, *cache_batch_idx; float softcap, p_dropout;
            int window_size_left, window_size_right; bool is_causal; int num_splits; long philox_args;
        };
        struct Flash_bwd_params : public Flash_fwd_params { bool deterministic; };
        template<typename, int, bool> void run_mha_fwd_(Flash_fwd_params &, CUstream_st *);
        template<typename, int, bool> void run_mha_fwd_splitkv_dispatch(Flash_fwd_params &, CUstream_st *);
        template<typename, int, bool> void run_mha_bwd_(Flash_bwd_params &, CUstream_st *);
        }
    """,
    "flash_3/flash.h": """
        struct Flash_fwd_params { int d, dv; };
        struct Flash_bwd_params : public Flash_fwd_params {};
        template<int, typename, int, int, bool, bool, bool, bool> void run_mha_fwd_(Flash_fwd_params &, CUstream_st *);
        template<int, typename, int, bool> void run_mha_bwd_(Flash_bwd_params &, CUstream_st *);
    """,
    "cutlass/numeric_types.h": "namespace cutlass { struct half_t; struct bfloat16_t; struct float_e4m3_t; }",
    "ATen/cuda/PhiloxCudaState.h": """
        namespace at { struct PhiloxCudaState {
            union Payload { unsigned long val; long *ptr; };
            Payload seed_, offset_; unsigned long offset_intragraph_; bool captured_;
        }; }
    """,
    "c10/cuda/CUDAException.h": """
        namespace c10 { namespace cuda { void c10_cuda_check_implementation(int, const char *, const char *, int, bool); } }
    """,
    # Host code's: what our headers in front of PyTorch's include.
    "ATen/core/Tensor.h": "namespace at { enum ScalarType { kByte, kChar, kShort, kInt, kLong, kHalf, kFloat, kDouble }; }",
    "ATen/TensorIndexing.h": "namespace at { namespace indexing {} }",
    **{f"ATen/ops/{name}.h": "" for name in ("_pad_enum", "empty", "empty_like", "reshape", "sum", "zeros")},
    "torch/csrc/utils/pybind.h": "",
    "torch/csrc/autograd/generated/variable_factories.h": "",
    "torch/csrc/autograd/variable.h": "",
    "torch/nn/functional/padding.h": "namespace torch {}",
    # Kernels'. Upstream includes PyTorch's error macros here, and with them the CUDA runtime.
    **{
        f"flash_{short}_launch_template.h": f"""
            #include <cuda_runtime.h>
            #include "flash.h"
            namespace cutlass {{ struct half_t; struct bfloat16_t; }}
            namespace flash {{
            template<int, int, int, int, {more} bool, bool, typename> struct Flash_{short}_kernel_traits;
            template<typename, bool, bool> void run_flash_{short}(Flash_{short}_params &, cudaStream_t);
            }}
        """
        for short, more in (("fwd", ""), ("bwd", "int, int, int,"))
    },
}


@pytest.fixture
def make(make_resolution: Callable[..., Resolution]) -> Plans:
    return plans(make_resolution)


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stubs")
    for name, text in STUBS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "\n".join(line.strip() for line in text.splitlines())
        path.write_text(f"#pragma once\n{lines}\n")
    return folder


def complaints(folder: Path, text: str, *includes: Path) -> str:
    """Return what the compiler says of a text that nothing comes before."""
    assert CXX is not None
    source = folder / "alone.cpp"
    source.write_text(text)
    argv = [CXX, "-std=c++17", "-Wall", "-Werror", "-fsyntax-only", "-DFLASH_NAMESPACE=flash"]
    done = subprocess.run([*argv, *(f"-I{one}" for one in includes), str(source)], capture_output=True, text=True)
    return done.stderr if done.returncode else ""


PIECES: dict[str, Callable[[], str]] = {
    "layout": lambda: neutral.asserts(LAYOUT),
    "check": lambda: neutral.check_function(LAYOUT),
    "joining": lambda: neutral.joining_function(LAYOUT),
    # In a universal wheel of a build with nothing left out, or with kernels of one PyTorch.
    "layout twice": lambda: neutral.asserts(LAYOUT) + neutral.check_function(LAYOUT),
}


@pytest.mark.parametrize("piece", PIECES)
def test_a_piece_needs_nothing_before_it(tmp_path: Path, stubs: Path, piece: str) -> None:
    assert complaints(tmp_path, PIECES[piece](), stubs) == ""


@pytest.mark.parametrize(("package", "folder"), [("flash-attn", ""), ("flash-attn-3", "flash_3")])
def test_what_raises_needs_nothing_before_it(
    tmp_path: Path, stubs: Path, make: Plans, package: str, folder: str
) -> None:
    plan, recipe = make(package, profile="diffusion"), find_recipe(package)
    text = two.dispatching(plan, recipe) if package == "flash-attn" else three.header(plan, recipe)
    found = complaints(tmp_path, re.sub(r"^#pragma once$", "", text, flags=re.MULTILINE), stubs / folder, stubs)
    assert found == ""


@FORMS
@pytest.mark.parametrize("profile", ["full", "inference", "diffusion"])
def test_what_stands_before_host_code(tmp_path: Path, stubs: Path, make: Plans, profile: str, universal: bool) -> None:
    text = host_text(make("flash-attn", profile=profile, universal=universal)).replace("#pragma once", "")
    assert complaints(tmp_path, text, stubs) == ""


def test_headers_in_front_of_pytorchs(tmp_path: Path, stubs: Path) -> None:
    unit = Unit("/b/a.o", ("/s/a.cpp",), ("c++",), "/b", Language.CXX)
    for name, text in relative(lean_host("a.cpp", "/g")(CompileGraph((unit,)))):
        write(tmp_path / "host", name, text)
    for name in ("torch/python.h", "torch/types.h", "torch/nn/functional.h"):
        assert complaints(tmp_path, f"#include <{name}>\n", tmp_path / "host", stubs) == ""


def test_headers_and_our_unit_of_kernels(tmp_path: Path, stubs: Path) -> None:
    codes = [Architecture.parse("80"), Architecture.parse("90")]
    kernel = Unit("/b/a.o", ("/s/a.cu",), ("nvcc", "-c", "/s/a.cu"), "/b", Language.CUDA, kernel="forward-hdim64")
    graph = kernels.lean("/g", LAYOUT, left_out(codes), ("dropout", "softcap"))(CompileGraph((kernel,)))
    files = dict(relative(neutral.library_unit("/g")(graph)))
    for name, text in files.items():
        write(tmp_path / "lean", name, text)
    assert {"attnforge_forward.h", "attnforge_backward_host.h", neutral.LIBRARY} <= set(files)
    for name in files:
        assert (name, complaints(tmp_path, f'#include "{name}"\n', tmp_path / "lean", stubs)) == (name, "")


def relative(graph: CompileGraph) -> Iterator[tuple[str, str]]:
    for file in graph.files:
        yield file.path.removeprefix("/g/"), file.text


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
