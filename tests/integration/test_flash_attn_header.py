"""The header is compiled with stand-ins of upstream's own declarations, and called: what it does is what counts."""
# ruff: noqa: E501 - C++ inside

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from attnforge.model.plan import BuildPlan
from attnforge.recipes.catalogue import find_recipe
from attnforge.recipes.flash_attn.adapter import dispatching

RECIPE = find_recipe("flash-attn")

FLASH_H = """
#pragma once
{config}
{begin}
struct Flash_fwd_params {{
    void *knew_ptr = nullptr; int *block_table = nullptr; int *cache_batch_idx = nullptr;
    void *alibi_slopes_ptr = nullptr; float softcap = 0; float p_dropout = 1; int window_size_left = -1, window_size_right = -1;
    bool is_causal = false; int num_splits = 0;
}};
struct Flash_bwd_params : public Flash_fwd_params {{}};
template<typename T, int Headdim, bool Is_causal> void run_mha_fwd_(Flash_fwd_params &params, cudaStream_t stream);
template<typename T, int Headdim, bool Is_causal> void run_mha_fwd_splitkv_dispatch(Flash_fwd_params &params, cudaStream_t stream);
template<typename T, int Headdim, bool Is_causal> void run_mha_bwd_(Flash_bwd_params &params, cudaStream_t stream);
{end}
"""

# Calls as flash_api.cpp makes them, after the header; the kernels say who they are.
MAIN = """
#include <cstdio>
#include <cstring>
namespace cutlass {{ struct alignas(2) half_t {{}}; struct alignas(2) bfloat16_t {{}}; }}
{begin}
{kernels}
template<typename T, int D> void call(const char *kind, Flash_bwd_params &params) {{
    if (!std::strcmp(kind, "forward")) params.is_causal ? run_mha_fwd_<T, D, true>(params, nullptr) : run_mha_fwd_<T, D, false>(params, nullptr);
    if (!std::strcmp(kind, "split")) run_mha_fwd_splitkv_dispatch<T, D, false>(params, nullptr);
    if (!std::strcmp(kind, "backward")) run_mha_bwd_<T, D, false>(params, nullptr);
}}
{end}
int main(int count, char **words) {{
    {using}
    Flash_bwd_params params; int some = 0;
    for (int at = 4; at < count; at++) {{
        if (!std::strcmp(words[at], "alibi")) params.alibi_slopes_ptr = &some;
        if (!std::strcmp(words[at], "softcap")) params.softcap = 1;
        if (!std::strcmp(words[at], "dropout")) params.p_dropout = 0.5f;
        if (!std::strcmp(words[at], "local")) params.window_size_left = 5;
        if (!std::strcmp(words[at], "causal")) {{ params.is_causal = true; params.window_size_left = 9; params.window_size_right = 0; }}
        if (!std::strcmp(words[at], "append")) params.knew_ptr = &some;
        if (!std::strcmp(words[at], "paged")) params.block_table = &some;
        if (!std::strcmp(words[at], "indexed")) params.cache_batch_idx = &some;
        if (!std::strcmp(words[at], "splits")) params.num_splits = 7;
    }}
    bool half = !std::strcmp(words[3], "fp16"); bool wide = !std::strcmp(words[2], "128");
    try {{
        if (half) wide ? call<cutlass::half_t, 128>(words[1], params) : call<cutlass::half_t, 64>(words[1], params);
        else wide ? call<cutlass::bfloat16_t, 128>(words[1], params) : call<cutlass::bfloat16_t, 64>(words[1], params);
    }} catch (const std::runtime_error &error) {{ std::puts(error.what()); return 3; }}
    return 0;
}}
"""


def kernel(entry: str, params: str, name: str, head_dim: int, dtype: str, causal: str) -> str:
    return (
        f"template<> void {entry}<cutlass::{dtype}, {head_dim}, {causal}>({params} &params, cudaStream_t) "
        f'{{ std::printf("{name} {head_dim} {dtype} {causal} splits=%d\\n", params.num_splits); }}'
    )


def program(folder: Path, plan: BuildPlan, *, namespaced: bool) -> Callable[..., tuple[int, str]]:
    """Compile the header for a plan with just the kernels that the plan keeps; return a caller of the result."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    begin, end = ("namespace FLASH_NAMESPACE {", "}") if namespaced else ("", "")
    entries = {
        "forward": ("run_mha_fwd_", "Flash_fwd_params"),
        "split": ("run_mha_fwd_splitkv_dispatch", "Flash_fwd_params"),
        "backward": ("run_mha_bwd_", "Flash_bwd_params"),
    }
    kernels = []
    for kept in plan.selection.kept:
        kind, dim, dtype, *causal = kept.split("-")
        entry, params = entries[kind]
        cpp = {"fp16": "half_t", "bf16": "bfloat16_t"}[dtype]
        kernels.append(kernel(entry, params, kind, int(dim[4:]), cpp, "true" if causal else "false"))
    (folder / "cuda_runtime.h").write_text("#pragma once\ntypedef struct CUstream_st *cudaStream_t;\n")
    config = "#define FLASH_NAMESPACE flash" if namespaced else ""
    (folder / "flash.h").write_text(FLASH_H.format(config=config, begin=begin, end=end))
    (folder / "dispatch.h").write_text(dispatching(plan, RECIPE))
    using = "using namespace FLASH_NAMESPACE;" if namespaced else ""
    text = MAIN.format(begin=begin, end=end, using=using, kernels="@@")
    # The kernels are defined in other units upstream, so the header's renames do not reach them: define them in one.
    (folder / "kernels.cpp").write_text(
        '#include "cuda_runtime.h"\n#include <cstdio>\n#include "flash.h"\n'
        "namespace cutlass { struct alignas(2) half_t {}; struct alignas(2) bfloat16_t {}; }\n"
        f"{begin}\n" + "\n".join(kernels) + f"\n{end}\n"
    )
    (folder / "main.cpp").write_text(text.replace("@@", ""))
    command = [compiler, "-std=c++17", "-Wall", "-Werror", f"-I{folder}", "-o", str(folder / "run")]
    sources = [str(folder / "kernels.cpp"), "-include", str(folder / "dispatch.h"), str(folder / "main.cpp")]
    first = [compiler, "-std=c++17", f"-I{folder}", "-c", sources[0], "-o", str(folder / "kernels.o")]
    subprocess.run(first, check=True)
    subprocess.run([*command, *sources[1:], str(folder / "kernels.o")], check=True)

    def call(*words: str) -> tuple[int, str]:
        done = subprocess.run([str(folder / "run"), *words], capture_output=True, text=True)
        return done.returncode, done.stdout

    return call


pytestmark = pytest.mark.compile


@pytest.mark.parametrize("namespaced", [True, False])
def test_diffusion(tmp_path: Path, make_plan: Callable[..., BuildPlan], namespaced: bool) -> None:
    plan = make_plan(profile="diffusion", head_dims=(64,), dtypes=("fp16",))
    call = program(tmp_path, plan, namespaced=namespaced)
    assert call("forward", "64", "fp16") == (0, "forward 64 half_t false splits=0\n")
    assert call("forward", "64", "fp16", "causal") == (0, "forward 64 half_t true splits=0\n")
    for feature in ("alibi", "softcap", "dropout", "local"):
        code, said = call("forward", "64", "fp16", feature)
        assert code == 3
        assert f"was built without {feature}" in said
        assert feature not in said.split("--without")[1]
        assert "attnforge build flash-attn==2.8.3 --gpu 9.0" in said
        assert call("split", "64", "fp16", feature)[0] == 3
    # Upstream's heuristic sends small calls to split-KV kernels: the plain ones compute them.
    assert call("split", "64", "fp16", "splits") == (0, "forward 64 half_t false splits=1\n")
    for use in ("append", "paged", "indexed"):
        code, said = call("split", "64", "fp16", use)
        assert code == 3
        assert "was built without split" in said
    code, said = call("backward", "64", "fp16")
    assert code == 3
    assert "was built without backward" in said
    code, said = call("forward", "128", "fp16")
    assert code == 3
    assert "kernels for head dimension 128 in fp16" in said
    assert "--head-dims 64,128 --dtypes fp16" in said
    code, said = call("forward", "64", "bf16")
    assert code == 3
    assert "--head-dims 64 --dtypes fp16,bf16" in said


@pytest.mark.parametrize("left_out", ["alibi", "softcap", "local", "dropout", "split", "backward"])
def test_one_feature_left_out_is_the_only_one_that_raises(
    tmp_path: Path, make_plan: Callable[..., BuildPlan], left_out: str
) -> None:
    call = program(tmp_path, make_plan(without=(left_out,), head_dims=(64,)), namespaced=True)
    for feature in ("alibi", "softcap", "local", "dropout"):
        assert call("forward", "64", "bf16", feature)[0] == (3 if feature == left_out else 0)
        assert call("split", "64", "bf16", feature)[0] == (3 if feature == left_out else 0)
    assert call("split", "64", "fp16", "paged")[0] == (3 if left_out == "split" else 0)
    assert call("backward", "64", "fp16")[0] == (3 if left_out == "backward" else 0)
    expected = "forward 64 half_t false splits=1\n" if left_out == "split" else "split 64 half_t false splits=7\n"
    assert call("split", "64", "fp16", "splits") == (0, expected)
    assert call("forward", "128", "fp16")[0] == 3


def test_every_message_names_a_command_that_plans(tmp_path: Path, make_plan: Callable[..., BuildPlan]) -> None:
    """The command in a message leads to a wheel that has what was missing."""
    plan = make_plan(profile="diffusion", head_dims=(64,))
    call = program(tmp_path, plan, namespaced=True)
    for words, restored in (
        (("forward", "64", "fp16", "softcap"), "softcap"),
        (("backward", "64", "fp16"), "backward"),
    ):
        said = call(*words)[1].strip()
        options = said.split("A wheel with it: attnforge build ")[1].split()
        given = dict(zip(options[1::2], options[2::2], strict=True))
        again = make_plan(
            gpus=tuple(given["--gpu"].split(",")),
            head_dims=tuple(int(dim) for dim in given["--head-dims"].split(",")),
            dtypes=tuple(given["--dtypes"].split(",")),
            without=tuple(given["--without"].split(",")),
        )
        assert set(plan.selection.without) - set(again.selection.without) == {restored}
