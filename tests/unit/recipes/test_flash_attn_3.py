"""FlashAttention 3: which of upstream's units there are, what its own settings leave out, and what raises besides."""
# ruff: noqa: E501 - C++ inside

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest

from attnforge.errors import RequestError
from attnforge.model.host import Host, Toolkit
from attnforge.model.kernels import Kernels
from attnforge.model.plan import BuildPlan, Resolution
from attnforge.recipes.catalogue import find_recipe
from attnforge.recipes.flash_attn_3.adapter import header

Make = Callable[..., Resolution]

RECIPE = find_recipe("flash-attn-3")
assert RECIPE.kernels is not None
KERNELS: Kernels = RECIPE.kernels


@pytest.fixture
def make_three(make_resolution: Make) -> Callable[..., BuildPlan]:
    def make(**changes: object) -> BuildPlan:
        fields = {
            "package": "flash-attn-3",
            "version": "3.0.0b1",
            "gpus": ("H100",),
            "profile": "",
            "groups": "none",
            **changes,
        }
        return make_resolution(**fields).plan

    return make


# --- upstream's units


def units() -> Iterator[str]:
    """Yield the file names of the units for 9.0, as hopper/setup.py puts them together with nothing left out."""
    dims = ["64", "96", "128", "192", "256", "64_256", "64_512", "192_128"]
    for dim, dtype, paged, split, softcap, packed in product(
        dims, ("bf16", "fp16", "e4m3"), ("", "_paged"), ("", "_split"), ("", "_softcap"), ("", "_packgqa")
    ):
        if not (packed and (paged or split)) and not (dtype == "e4m3" and dim.startswith("64_")):
            yield f"flash_fwd_hdim{dim}_{dtype}{paged}{split}{softcap}{packed}_sm90.cu"
    for dim, dtype in product(("64", "96", "128", "192", "256"), ("bf16", "fp16")):
        yield f"flash_bwd_hdim{dim}_{dtype}_softcapall_sm90.cu"


def test_each_unit_has_kernels_of_one_name_and_each_name_one_unit() -> None:
    matches = [re.fullmatch(KERNELS.pattern, name) for name in units()]
    names = [KERNELS.named(match) for match in matches if match]
    assert len(names) == len(list(units())) == 230
    assert sorted(names) == sorted(KERNELS.names(RECIPE.releases[0].head_dims))
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("flash_fwd_hdim128_bf16_sm90.cu", "forward-hdim128-bf16"),
        ("flash_fwd_hdim64_512_fp16_paged_split_softcap_sm90.cu", "forward-hdim64-fp16-v512-paged-split-softcap"),
        ("flash_fwd_hdim192_128_e4m3_softcap_packgqa_sm90.cu", "forward-hdim192-fp8-v128-softcap-packgqa"),
        ("flash_bwd_hdim96_fp16_softcapall_sm90.cu", "backward-hdim96-fp16"),
        # Without softcapping, upstream builds the unit of that name.
        ("flash_bwd_hdim96_fp16_sm90.cu", "backward-hdim96-fp16"),
    ],
)
def test_units_are_named(file: str, name: str) -> None:
    match = re.fullmatch(KERNELS.pattern, file)
    assert match is not None
    assert KERNELS.named(match) == name


@pytest.mark.parametrize(
    "file", ["flash_fwd_hdim128_bf16_sm80.cu", "flash_fwd_hdim128_bf16_sm100.cu", "flash_fwd_combine.cu"]
)
def test_other_units_are_none_of_them(file: str) -> None:
    assert re.fullmatch(KERNELS.pattern, file) is None


# --- what is selected, in upstream's words


def disabled(plan: BuildPlan) -> set[str]:
    prefix = "FLASH_ATTENTION_DISABLE_"
    return {name.removeprefix(prefix) for name, value in plan.settings if name.startswith(prefix) and value == "TRUE"}


def test_all_of_it_is_without_the_kernels_for_8_alone(make_three: Callable[..., BuildPlan]) -> None:
    plan = make_three()
    assert len(plan.selection.kept) == 230
    assert disabled(plan) == {"SM80"}


def test_a_profile_means_the_same_as_for_flashattention_2(make_three: Callable[..., BuildPlan]) -> None:
    plan = make_three(profile="diffusion", head_dims=(128,), dtypes=("bf16",))
    assert plan.selection.kept == ("forward-hdim128-bf16",)
    assert disabled(plan) == {
        "SM80", "BACKWARD", "SOFTCAP", "LOCAL", "SPLIT", "PAGEDKV", "APPENDKV", "PACKGQA", "HDIMDIFF64", "HDIMDIFF192",
        "HDIM64", "HDIM96", "HDIM192", "HDIM256", "FP16", "FP8",
    }  # fmt: skip
    inference = make_three(profile="inference", head_dims=(64, 192))
    assert disabled(inference) == {"SM80", "BACKWARD", "HDIM96", "HDIM128", "HDIM256"}
    assert "forward-hdim64-bf16-v512-paged-split" in inference.selection.kept


def test_what_belongs_to_a_head_dimension_goes_with_it(make_three: Callable[..., BuildPlan]) -> None:
    plan = make_three(head_dims=(128,))
    assert plan.selection.without == ("hdimdiff192", "hdimdiff64")
    assert "hdimdiff" not in plan.label
    assert "HDIMDIFF64" in disabled(plan)
    assert make_three(head_dims=(64, 128)).selection.without == ("hdimdiff192",)


@pytest.mark.parametrize("name", sorted(RECIPE.features))
def test_each_feature_can_be_left_out(make_three: Callable[..., BuildPlan], name: str) -> None:
    plan = make_three(without=(name,))
    assert name in plan.selection.without
    assert RECIPE.features[name].setting in dict(plan.settings)
    assert f".no{name}" in plan.label


# --- the wheel


def test_one_wheel_serves_later_pytorch_and_python(make_three: Callable[..., BuildPlan]) -> None:
    plan = make_three(label="")
    assert plan.requires_torch == ">=2.11"
    assert plan.label == "cu130torch2.11.stable.sm90a"
    assert plan.wheel.endswith("-cp39-abi3-linux_x86_64.whl")


def test_before_2_9_a_wheel_is_for_one_pytorch(
    make_three: Callable[..., BuildPlan], make_host: Callable[..., Host]
) -> None:
    host = make_host(toolkits=(Toolkit(home="/cuda", cuda="12.8", nvcc="12.8.93"),))
    plan = make_three(host=host, torch="2.7.1", cuda="12.8")
    assert plan.requires_torch == "==2.7.*"
    assert plan.label == "cu128torch2.7.sm90a"
    assert plan.wheel.endswith("-cp39-abi3-linux_x86_64.whl")


@pytest.mark.parametrize(("cuda", "torch"), [("12.6", "2.7.1"), ("12.9", "2.8.0")])
def test_it_is_refused_where_upstream_would_download_compilers(
    make_three: Callable[..., BuildPlan], make_host: Callable[..., Host], cuda: str, torch: str
) -> None:
    host = make_host(toolkits=(Toolkit(home="/cuda", cuda=cuda, nvcc=f"{cuda}.85"),))
    with pytest.raises(RequestError, match=f"FlashAttention 3 needs CUDA .*, the target has {cuda}"):
        make_three(host=host, torch=torch, cuda=cuda)


def test_it_is_refused_below_hopper_and_flashattention_2_offered(make_three: Callable[..., BuildPlan]) -> None:
    with pytest.raises(RequestError, match="has no kernels for L40S") as caught:
        make_three(gpus=("H100", "L40S"))
    assert "attnforge build flash-attn --gpu L40S" in caught.value.hint


# --- the header, compiled with stand-ins of upstream's declarations, and called

FLASH_H = """
#pragma once
struct Flash_fwd_params { int d = 64, dv = 64; };
struct Flash_bwd_params : public Flash_fwd_params {};
template<int Arch, typename T, int D, int Dv, bool Split, bool Paged, bool Softcap, bool Packed> void run_mha_fwd_(Flash_fwd_params &params, cudaStream_t stream);
template<int Arch, typename T, int D, bool Softcap> void run_mha_bwd_(Flash_bwd_params &params, cudaStream_t stream);
"""
MAIN = """
#include <cstdio>
#include <cstdlib>
#include <cstring>
KERNELS
template<typename T> void call(const char *kind, int d, int dv) {
    Flash_bwd_params params; params.d = d; params.dv = dv;
    if (!std::strcmp(kind, "forward")) d <= 64 ? run_mha_fwd_<90, T, 64, 64, false, false, false, false>(params, nullptr) : run_mha_fwd_<90, T, 192, 192, false, false, false, false>(params, nullptr);
    else if constexpr (!std::is_same_v<T, cutlass::float_e4m3_t>) run_mha_bwd_<90, T, 64, false>(params, nullptr);
}
int main(int, char **words) {
    int d = std::atoi(words[3]), dv = std::atoi(words[4]);
    try {
        if (!std::strcmp(words[2], "fp16")) call<cutlass::half_t>(words[1], d, dv);
        else if (!std::strcmp(words[2], "bf16")) call<cutlass::bfloat16_t>(words[1], d, dv);
        else call<cutlass::float_e4m3_t>(words[1], d, dv);
    } catch (const std::runtime_error &error) { std::puts(error.what()); return 3; }
    return 0;
}
"""
_CPP = {"fp16": "half_t", "bf16": "bfloat16_t", "fp8": "float_e4m3_t"}


def program(folder: Path, plan: BuildPlan) -> Callable[..., tuple[int, str]]:
    """Compile the header for a plan with just the kernels that the plan keeps; return a caller of the result."""
    (folder / "cutlass").mkdir()
    types = " ".join(f"struct {name} {{}};" for name in _CPP.values())
    (folder / "cutlass" / "numeric_types.h").write_text(f"#pragma once\nnamespace cutlass {{ {types} }}\n")
    (folder / "cuda_runtime.h").write_text("#pragma once\ntypedef void *cudaStream_t;\n")
    (folder / "flash.h").write_text(FLASH_H)
    (folder / "dispatch.h").write_text(header(plan, RECIPE))
    kept = [name for name in plan.selection.kept if re.fullmatch(r"\w+-hdim(64|192)-\w+", name)]
    (folder / "main.cpp").write_text(MAIN.replace("KERNELS", "\n".join(map(kernel, kept))))
    compiler = shutil.which("c++")
    assert compiler
    command = [
        compiler,
        "-std=c++17",
        f"-I{folder}",
        "-include",
        "dispatch.h",
        folder / "main.cpp",
        "-o",
        folder / "main",
    ]
    subprocess.run([str(word) for word in command], check=True)

    def call(*words: str) -> tuple[int, str]:
        done = subprocess.run([folder / "main", *words], capture_output=True, text=True)
        return done.returncode, done.stdout.strip()

    return call


def kernel(name: str) -> str:
    kind, dim, dtype = name.split("-")
    number, cpp = dim.removeprefix("hdim"), f"cutlass::{_CPP[dtype]}"
    # Defined under upstream's own names: the header's are for the host's calls alone.
    if kind == "forward":
        return (
            f"#undef run_mha_fwd_\ntemplate<> void run_mha_fwd_<90, {cpp}, {number}, {number}, false, false, false, false>"
            f'(Flash_fwd_params &, cudaStream_t) {{ std::puts("{name}"); }}\n#define run_mha_fwd_ attnforge_forward'
        )
    return (
        f"#undef run_mha_bwd_\ntemplate<> void run_mha_bwd_<90, {cpp}, {number}, false>"
        f'(Flash_bwd_params &, cudaStream_t) {{ std::puts("{name}"); }}\n#define run_mha_bwd_ attnforge_backward'
    )


def test_what_is_there_is_called(make_three: Callable[..., BuildPlan], tmp_path: Path) -> None:
    call = program(tmp_path, make_three(head_dims=(64, 192), without=("softcap",)))
    assert call("forward", "bf16", "64", "64") == (0, "forward-hdim64-bf16")
    assert call("forward", "fp8", "192", "192") == (0, "forward-hdim192-fp8")
    assert call("forward", "fp16", "192", "128") == (0, "forward-hdim192-fp16")
    assert call("backward", "fp16", "64", "64") == (0, "backward-hdim64-fp16")


def test_what_was_left_out_raises_and_names_what_builds_it(
    make_three: Callable[..., BuildPlan], tmp_path: Path
) -> None:
    plan = make_three(head_dims=(64, 192), dtypes=("fp16",), without=("hdimdiff64", "hdimdiff192"))
    call = program(tmp_path, plan)
    assert call("forward", "fp16", "64", "64") == (0, "forward-hdim64-fp16")
    code, told = call("forward", "bf16", "64", "64")
    assert code == 3
    assert "built without kernels for head dimension 64 in bf16" in told
    assert "--dtypes fp16,bf16" in told
    assert call("backward", "bf16", "64", "64")[0] == 3
    for dims, name in ((("64", "256"), "hdimdiff64"), (("192", "128"), "hdimdiff192")):
        code, told = call("forward", "fp16", *dims)
        assert code == 3
        assert f"built without {name}" in told
        assert "attnforge build flash-attn-3==3.0.0b1 --gpu 9.0a" in told
