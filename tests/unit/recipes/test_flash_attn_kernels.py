"""Kernels against neutral headers, and without the variants that nothing launches."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.knowledge.capabilities import capabilities, capabilities_of
from attnforge.model.graph import CompileGraph, Language, Unit
from attnforge.model.target import Architecture
from attnforge.recipes.flash_attn.kernels import lean, variant_headers
from attnforge.recipes.flash_attn.neutral import (
    LAYOUTS,
    LIBRARY,
    joining_function,
    library_unit,
    neutral_headers,
    questions,
)
from attnforge.recipes.flash_attn.parts import part_header
from attnforge.recipes.flash_attn.variants import Variant, left_out, symbol_pattern, unreachable, variants

ARCHITECTURES = [Architecture.parse(text) for text in ("80", "90", "100", "120")]
H100, AMPERE = Architecture.parse("90"), Architecture.parse("80")

CXX = shutil.which("g++")


def unit(kernel: str = "forward-hdim64-fp16") -> Unit:
    source = "/s/csrc/flash_attn/src/a.cu"
    argv = (
        "nvcc",
        "-I/s/csrc/cutlass/include",
        "-I",
        "/env/torch/include",
        "-isystem",
        "/py/include",
        "-c",
        source,
        "-o",
        "/b/a.o",
    )
    return Unit("/b/a.o", (source,), argv, "/b", Language.CUDA, kernel=kernel)


def traits(found: frozenset[Variant], kind: str, head_dim: int) -> set[tuple[str, bool, bool]]:
    return {(v.traits, v.dropout, v.causal) for v in found if (v.kind, v.head_dim) == (kind, head_dim)}


def test_code_for_h100_does_without_what_upstream_launches_on_8_6_and_8_9() -> None:
    assert traits(unreachable(H100), "forward", 128) == {
        ("128, 32, 4, false, false", False, False),
        ("64, 64, 4, false, false", False, True),
    }
    assert traits(unreachable(H100), "forward", 64) == set()
    assert traits(unreachable(H100), "forward", 96) == {
        ("64, 64, 4, false, false", dropout, True) for dropout in (False, True)
    }


def test_code_that_several_gpus_run_keeps_what_any_of_them_launches() -> None:
    assert {variant.kind for variant in unreachable(AMPERE)} == {"backward"}
    assert {variant.head_dim for variant in unreachable(AMPERE)} == {256}


@pytest.mark.parametrize("gpu", [known.architecture for known in capabilities()], ids=str)
def test_every_gpu_finds_a_kernel_for_each_call_without_dropout(gpu: Architecture) -> None:
    for code in ARCHITECTURES:
        if code.runs_on(gpu):
            kept = set(variants()) - unreachable(code)
            calls = {(v.kind, v.head_dim, v.causal) for v in variants()}
            assert {(v.kind, v.head_dim, v.causal) for v in kept if not v.dropout} == calls


def test_of_an_architecture_that_no_known_gpu_runs_nothing_is_left_out() -> None:
    unknown = Architecture.parse("150")
    assert capabilities_of(unknown) == ()
    assert unreachable(unknown) == frozenset()


@given(st.lists(st.sampled_from(ARCHITECTURES), min_size=1, unique=True))
def test_the_first_architecture_has_every_kernel_that_the_host_registers(codes: list[Architecture]) -> None:
    found = left_out(codes)
    for code in codes:
        assert found[code] <= unreachable(code)
        assert found[codes[0]] <= found[code]


def test_code_for_h100_is_the_same_beside_other_architectures() -> None:
    alone = {file.path: file.text for file in variant_headers("forward", "/g", left_out([H100]))}
    beside = {file.path: file.text for file in variant_headers("forward", "/g", left_out([AMPERE, H100]))}
    assert alone["/g/attnforge_forward_sm90.h"] == beside["/g/attnforge_forward_sm90.h"]
    assert alone["/g/attnforge_forward.h"] == beside["/g/attnforge_forward.h"]
    assert "run_flash_fwd<" in alone["/g/attnforge_forward_sm90.h"]
    assert "throw" in alone["/g/attnforge_forward_host.h"]
    assert "throw" not in beside["/g/attnforge_forward_host.h"]


def changed(layout_name: str, *units: Unit, features: tuple[str, ...] = ()) -> CompileGraph:
    layout = next((layout for layout in LAYOUTS if layout.name == layout_name), None)
    return lean("/g", layout, left_out([H100]), features)(CompileGraph(units))


def test_kernels_see_no_header_of_pytorch_or_python() -> None:
    graph = changed("philox-64", unit())
    (made,) = graph.units
    assert made.argv[:3] == ("nvcc", "-I/g", "-I/s/csrc/cutlass/include")
    assert not any("torch" in word or "/py/" in word for word in made.argv)
    assert made.argv[-2:] == ("-include", "/g/attnforge_forward.h")
    assert made.ignores == ("CPATH",)
    assert made.fallback == (unit(),)
    assert {"/g/c10/cuda/CUDAException.h", "/g/attnforge_forward_sm90.h"} <= {file.path for file in graph.files}


def test_without_a_known_layout_kernels_keep_the_headers_of_pytorch() -> None:
    (made,) = changed("", unit()).units
    assert made.argv == (*unit().argv, "-include", "/g/attnforge_forward.h")
    assert made.ignores == ()


def test_split_kernels_have_one_launcher_for_all_gpus() -> None:
    (made,) = changed("philox-64", unit("split-hdim64-fp16")).units
    assert "-include" not in made.argv


@pytest.mark.parametrize("kernel", ["", "forward-hdim64-fp16"])
def test_other_units_stay_as_they_are(kernel: str) -> None:
    host = Unit("/b/api.o", ("/s/api.cpp",), ("c++", "-I/env"), "/b", Language.CXX, kernel=kernel)
    graph = CompileGraph((host,))
    assert lean("/g", LAYOUTS[0], left_out([H100]), ("dropout", "softcap"))(graph) == graph


STATE = """
#include <cstdint>
namespace at {{ struct PhiloxCudaState {{
  PhiloxCudaState() = default;
  PhiloxCudaState(uint64_t, uint64_t) {{}}
  union Payload {{ uint64_t val; int64_t* ptr; }};
  {members}
}}; }}
"""
WIDE = "Payload seed_{}; Payload offset_{}; uint64_t offset_intragraph_ = 0; bool captured_ = false;"
NARROW = WIDE.replace("uint64_t offset", "uint32_t offset")
MOVED = "Payload offset_{}; Payload seed_{}; uint64_t offset_intragraph_ = 0; bool captured_ = false;"
MORE = WIDE + " bool other_ = false; int64_t another_ = 0;"


@pytest.mark.compile
@pytest.mark.skipif(CXX is None, reason="no C++ compiler on PATH")
@pytest.mark.parametrize(
    ("members", "answers"),
    [(WIDE, {"philox-64"}), (NARROW, {"philox-32"}), (MOVED, set()), (MORE, set())],
    ids=["wide", "narrow", "moved", "more"],
)
def test_the_layout_is_asked_of_the_real_pytorch(tmp_path: Path, members: str, answers: set[str]) -> None:
    header = tmp_path / "ATen/cuda/PhiloxCudaState.h"
    header.parent.mkdir(parents=True)
    header.write_text(STATE.format(members=members))
    assert CXX is not None
    said = set()
    for name, text in questions().items():
        source = tmp_path / f"{name}.cpp"
        source.write_text(text)
        command = [CXX, "-std=c++17", "-fsyntax-only", f"-I{tmp_path}", str(source)]
        if subprocess.run(command, capture_output=True).returncode == 0:
            said.add(name)
    assert said == answers


def test_the_kernels_library_has_a_unit_of_ours_compiled_as_kernels_are() -> None:
    graph = library_unit("/g")(changed("philox-64", unit()))
    kernel, ours = graph.units
    assert ours.sources == (f"/g/{LIBRARY}",) and ours.output == f"/g/{LIBRARY}.o"
    assert ours.argv == ("nvcc", "-I/g", "-I/s/csrc/cutlass/include", "-c", f"/g/{LIBRARY}", "-o", ours.output)
    assert ours.ignores == kernel.ignores
    assert f"/g/{LIBRARY}" in {file.path for file in graph.files}


def test_without_a_kernel_on_neutral_headers_there_is_nothing_to_add() -> None:
    empty = CompileGraph((replace(unit(), empty=True),))
    assert library_unit("/g")(empty) == empty
    bound = changed("", unit())
    assert library_unit("/g")(bound) == bound


FLASH = """
#include <ATen/cuda/CUDAGeneratorImpl.h>
namespace flash {{
struct Flash_fwd_params {{ void *q; float p_dropout; {more} at::PhiloxCudaState philox_args; int num_splits; }};
struct Flash_bwd_params : public Flash_fwd_params {{ bool deterministic; }};
}}
"""
RUNTIME = """
#pragma once
#include <cstddef>
#include <cstdint>
typedef int cudaError_t;
enum { cudaSuccess = 0 };
inline const char *cudaGetErrorString(cudaError_t) { return "seven"; }
inline cudaError_t cudaGetLastError() { return 0; }
"""
TORCH_CHECK = """
#pragma once
#include <stdexcept>
namespace c10 { namespace cuda {
inline void c10_cuda_check_implementation(int32_t, const char *, const char *, unsigned, bool) {
    throw std::logic_error("PyTorch's own");
}
} }
"""
MAIN = """
#include <cstdio>
#include <exception>
namespace attnforge { void cuda_check(int, const char *, const char *, unsigned); }
int main() {
    try { attnforge::cuda_check(0, "f", "g", 1); attnforge::cuda_check(7, "f.cu", "run", 12); }
    catch (const std::exception &error) { std::puts(error.what()); }
}
"""


def write_files(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def joined(
    tmp_path: Path, *, host_has: str = "", with_host: bool = True, namespace: str = "flash"
) -> subprocess.CompletedProcess[str]:
    """Compile our unit of the library and what stands before flash_api.cpp as both sides see them, and link them."""
    assert CXX is not None
    flash = FLASH if namespace else FLASH.replace("namespace flash {{", "").removesuffix("}}\n")
    kernel_side = write_files(tmp_path / "kernels", {"flash.h": flash.format(more=""), "cuda_runtime.h": RUNTIME})
    generated = library_unit("/g")(changed("philox-64", unit())).files
    for file in (*neutral_headers("/g", LAYOUTS[0]), *generated):
        write_files(kernel_side, {str(Path(file.path).relative_to("/g")): file.text})
    host_side = write_files(
        tmp_path / "host",
        {
            "flash.h": flash.format(more=host_has),
            "cuda_runtime.h": RUNTIME,
            "c10/cuda/CUDAException.h": TORCH_CHECK,
            "ATen/cuda/PhiloxCudaState.h": "#pragma once\n" + STATE.format(members=WIDE),
            "ATen/cuda/CUDAGeneratorImpl.h": "#pragma once\n#include <ATen/cuda/PhiloxCudaState.h>\n",
            "api.cpp": joining_function(LAYOUTS[0]),
        },
    )
    main = write_files(tmp_path, {"main.cpp": MAIN}) / "main.cpp"
    sides = [(kernel_side, ["-x", "c++", str(kernel_side / LIBRARY)])]
    if with_host:
        sides.append((host_side, [str(host_side / "api.cpp")]))
    objects = []
    for folder, source in sides:
        made = folder / "made.o"
        define = [f"-DFLASH_NAMESPACE={namespace}"] if namespace else []
        command = [CXX, "-std=c++17", *define, f"-I{folder}", "-c", "-o", str(made), *source]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        objects.append(str(made))
    program = str(tmp_path / "program")
    linked = subprocess.run([CXX, "-std=c++17", "-o", program, str(main), *objects], capture_output=True, text=True)
    return linked if linked.returncode else subprocess.run([program], capture_output=True, text=True)


@pytest.mark.compile
@pytest.mark.skipif(CXX is None, reason="no C++ compiler on PATH")
@pytest.mark.parametrize("namespace", ["flash", ""], ids=["2.8", "2.7"])
def test_an_error_of_a_kernel_is_pytorchs_own_where_host_code_is_there(tmp_path: Path, namespace: str) -> None:
    assert joined(tmp_path, namespace=namespace).stdout.strip() == "PyTorch's own"


@pytest.mark.compile
@pytest.mark.skipif(CXX is None, reason="no C++ compiler on PATH")
def test_an_error_of_a_kernel_alone_says_what_and_where(tmp_path: Path) -> None:
    assert joined(tmp_path, with_host=False).stdout.strip() == "CUDA error: seven (f.cu:12, run)"


@pytest.mark.compile
@pytest.mark.skipif(CXX is None, reason="no C++ compiler on PATH")
@pytest.mark.parametrize("more", ["int wider;", "double earlier;"])
def test_where_the_two_sides_differ_in_layout_they_do_not_link(tmp_path: Path, more: str) -> None:
    done = joined(tmp_path, host_has=f"{more} {more.replace('r;', 'r2;')}")
    assert done.returncode != 0 and "attnforge::boundary<" in done.stderr


def kernel_symbol(variant: Variant, dtype: str, flags: str = "") -> str:
    """Mangle a kernel as GCC and nvcc do (held against the PTX of real units by experiments/shared.py)."""
    letters = {"true": "Lb1E", "false": "Lb0E"}
    numbers = [str(variant.head_dim), *variant.traits.split(", ")]
    arguments = "".join(letters.get(word) or f"Li{word}E" for word in numbers)
    kind = {"forward": "fwd", "backward": "bwd"}[variant.kind]
    base = "".join(f"Li{word}E" for word in numbers[:4])
    traits = f"23Flash_{kind}_kernel_traitsI{arguments}N7cutlass{dtype}E19Flash_kernel_traitsI{base}S2_EE"
    return f"_ZN5flash16flash_{kind}_kernelI{traits}{flags}EEvNS_16Flash_{kind}_paramsE"


@given(st.sampled_from(sorted(variants(), key=repr)), st.sampled_from(["6half_t", "10bfloat16_t"]))
def test_kernels_of_variants_that_are_left_out_are_known_by_their_names(variant: Variant, dtype: str) -> None:
    missing = unreachable(H100)
    pattern = re.compile(symbol_pattern(variant.kind, missing))
    flags = f"Lb{int(variant.dropout)}ELb{int(variant.causal)}ELb0ELb1ELb1E"
    assert bool(pattern.search(kernel_symbol(variant, dtype, flags))) == (variant in missing)


@given(st.sampled_from([variant for variant in sorted(variants(), key=repr) if variant.kind == "backward"]))
def test_kernels_around_the_backward_pass_go_with_the_last_variant_that_launches_them(variant: Variant) -> None:
    missing = unreachable(H100)
    alike = {
        one
        for one in variants()
        if (one.kind, one.head_dim, one.traits) == ("backward", variant.head_dim, variant.traits)
    }
    found = re.search(symbol_pattern("backward", missing), kernel_symbol(variant, "6half_t"))
    assert bool(found) == (alike <= missing)


def test_units_say_which_kernels_their_code_does_without() -> None:
    missing = left_out([AMPERE, H100])
    graph = lean("/g", LAYOUTS[0], missing, ())(CompileGraph((unit("forward-hdim128-fp16"),)))
    (changed,) = graph.units
    patterns = dict(changed.left_out)
    sm8x = Variant("forward", 128, "128, 32, 4, false, false", dropout=False, causal=False)
    assert re.search(patterns["sm_90"], kernel_symbol(sm8x, "6half_t", "Lb0ELb0ELb0E"))
    assert not re.search(patterns.get("sm_80", "^$"), kernel_symbol(sm8x, "6half_t", "Lb0ELb0ELb0E"))
    assert changed.fallback[0].left_out == ()


def test_architectures_after_the_first_have_no_kernel_that_they_do_not_launch() -> None:
    # Backward 256: no GPU that runs sm_80 has the shared memory of H100's variant, and H100 launches no other.
    found = left_out([AMPERE, H100])
    assert found[H100] == unreachable(H100)
    assert found[AMPERE] == frozenset()


# --- kernels with both softcap and dropout

SWITCHES = """
#pragma once
#define BOOL_SWITCH(COND, CONST_NAME, ...) [&] { \\
    if (COND) { constexpr static bool CONST_NAME = true; return __VA_ARGS__(); } \\
    else { constexpr static bool CONST_NAME = false; return __VA_ARGS__(); } }()
#ifdef FLASHATTENTION_DISABLE_SOFTCAP
#define SOFTCAP_SWITCH(COND, CONST_NAME, ...) [&] { \\
    constexpr static bool CONST_NAME = false; return __VA_ARGS__(); }()
#else
#define SOFTCAP_SWITCH BOOL_SWITCH
#endif
#define DROPOUT_SWITCH BOOL_SWITCH
"""
# As upstream's: traits differ with dropout, and a kernel with softcap has none.
TEMPLATES = """
#pragma once
#include <cstdio>
#include "static_switch.h"
struct Flash_fwd_params { bool dropout, softcap; };
using cudaStream_t = int;
template<int Traits, bool Is_dropout, bool Is_softcap> void kernel() {
    std::printf("%d%d%d ", Traits, Is_dropout, Is_softcap);
}
template<int Traits, bool Is_dropout> void run_flash_fwd(Flash_fwd_params &params) {
    SOFTCAP_SWITCH(params.softcap, Is_softcap, [&] { kernel<Traits, Is_dropout && !Is_softcap, Is_softcap>(); });
}
template<int Traits> void run_flash_splitkv_fwd(Flash_fwd_params &params) {
    SOFTCAP_SWITCH(params.softcap, Is_softcap, [&] { kernel<Traits, false, Is_softcap>(); });
}
"""
CALLS = """
#include <exception>
#include "flash_fwd_launch_template.h"
int main() {
    for (int call = 0; call < 4; ++call) {
        Flash_fwd_params params{call / 2 > 0, call % 2 > 0};
        try {
            DROPOUT_SWITCH(params.dropout, Is_dropout, [&] { run_flash_fwd<1 + Is_dropout, Is_dropout>(params); });
        } catch (const std::exception &error) { std::printf("refused "); }
        if (!params.dropout) run_flash_splitkv_fwd<3>(params);
    }
}
"""


@pytest.mark.skipif(CXX is None, reason="no g++")
@pytest.mark.parametrize(
    ("before", "launched", "instantiated"),
    [
        ((), "100 300 101 301 210 refused", {"100", "101", "210", "300", "301"}),
        (("-DFLASHATTENTION_DISABLE_SOFTCAP",), "100 300 100 300 210 210", {"100", "210", "300"}),
        (("-include", "softcap.h"), "101 301 101 301 201 201", {"101", "201", "301"}),
    ],
    ids=["all features", "without softcap", "a part with softcap alone"],
)
def test_no_kernel_is_made_for_both_softcap_and_dropout(
    before: tuple[str, ...], launched: str, instantiated: set[str], tmp_path: Path
) -> None:
    (choice,) = [file.text for file in variant_headers("forward", "/g", {}) if file.path == "/g/attnforge_forward.h"]
    for name, text in (
        ("static_switch.h", SWITCHES),
        ("flash_fwd_launch_template.h", TEMPLATES),
        ("softcap.h", part_header("softcap")),
        ("attnforge_forward.h", choice),
        ("attnforge_forward_host.h", ""),
        ("a.cpp", CALLS),
    ):
        (tmp_path / name).write_text(text)
    command = [str(CXX), "-std=c++17", "-I.", *before, "-include", "attnforge_forward.h", "a.cpp", "-o", "a.out"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    ran = subprocess.run([str(tmp_path / "a.out")], check=True, capture_output=True, text=True)
    assert ran.stdout.split() == launched.split()
    symbols = subprocess.run(["nm", "-C", "a.out"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    kernels = re.findall(r"kernel<(\d), (true|false), (true|false)>", symbols)
    assert {"".join(word.replace("true", "1").replace("false", "0") for word in one) for one in kernels} == instantiated


@pytest.mark.parametrize(
    ("features", "included"), [(("dropout", "softcap"), True), (("dropout",), False), (("softcap", "local"), False)]
)
def test_units_with_both_features_leave_these_kernels_out(features: tuple[str, ...], included: bool) -> None:
    own = unit("backward-hdim64-fp16"), unit("forward-hdim64-fp16"), unit("split-hdim64-fp16")
    graph = lean("/g", None, {}, features)(CompileGraph(own))
    assert ["-include" in made.argv for made in graph.units] == [included, included, False]
