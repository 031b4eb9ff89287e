from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.compile.graph.passes.architectures import architectures, without_architectures
from attnforge.compile.graph.passes.classify import classify
from attnforge.compile.graph.passes.collect import collect
from attnforge.compile.graph.passes.compress import compress
from attnforge.compile.graph.passes.leave import leave
from attnforge.compile.graph.passes.price import price
from attnforge.compile.graph.passes.reproducible import module_id, reproducible
from attnforge.compile.graph.passes.select import select
from attnforge.compile.graph.passes.share import share
from attnforge.compile.graph.passes.standard import standard
from attnforge.compile.graph.pipeline import passes_for
from attnforge.errors import BuildError
from attnforge.model.graph import CompileGraph, Language, Unit
from attnforge.model.kernels import kernel_name
from attnforge.model.plan import BuildPlan
from attnforge.model.release import UnitArchitectures, compiled_for
from attnforge.model.sharing import Shared
from attnforge.model.target import Architecture
from attnforge.recipes.catalogue import find_adapter, find_recipe
from attnforge.recipes.flash_attn.adapter import HEADER

RECIPE = find_recipe("flash-attn")
NVCC = (
    "nvcc",
    "-c",
    "-O3",
    "-gencode",
    "arch=compute_80,code=sm_80",
    "-gencode=arch=compute_90,code=sm_90",
    "--threads",
    "4",
)


def cuda(name: str, argv: Sequence[str] = NVCC) -> Unit:
    return Unit(f"/b/{name}.o", (f"/s/{name}",), (*argv, f"/s/{name}", "-o", f"/b/{name}.o"), "/b", Language.CUDA)


def cxx(name: str) -> Unit:
    return Unit(f"/b/{name}.o", (f"/s/{name}",), ("c++", "-g", "-c", f"/s/{name}"), "/b", Language.CXX)


def upstream_graph() -> CompileGraph:
    """The units of FlashAttention 2.8.3, by their names."""
    names = [
        f"flash_{kind}_hdim{dim}_{dtype}{causal}_sm80.cu"
        for kind in ("fwd", "bwd", "fwd_split")
        for dim in (32, 64, 96, 128, 192, 256)
        for dtype in ("fp16", "bf16")
        for causal in ("", "_causal")
    ]
    return CompileGraph((cxx("flash_api.cpp"), *(cuda(name) for name in names)))


def run_all(plan: BuildPlan, graph: CompileGraph) -> CompileGraph:
    own = find_adapter(RECIPE).passes(plan, RECIPE, "/g", {"philox-64"})
    for one in passes_for(plan, RECIPE, own, lambda what: f"key {what}", {"/s": "source"}, "/g"):
        graph = one(graph)
    return graph


def test_units_are_classified_by_their_names(make_plan: Callable[..., BuildPlan]) -> None:
    assert RECIPE.kernels is not None
    graph = classify(RECIPE.kernels, make_plan().selection)(upstream_graph())
    by_name = {unit.name: unit.kernel for unit in graph.units}
    assert by_name["flash_fwd_hdim64_fp16_sm80.cu"] == "forward-hdim64-fp16"
    assert by_name["flash_fwd_split_hdim128_bf16_causal_sm80.cu"] == "split-hdim128-bf16-causal"
    assert by_name["flash_bwd_hdim256_fp16_causal_sm80.cu"] == "backward-hdim256-fp16-causal"
    assert by_name["flash_api.cpp"] == ""
    assert kernel_name("forward", 64, "fp16") in by_name.values()


def test_a_kernel_that_the_recipe_does_not_know_stops_the_build(make_plan: Callable[..., BuildPlan]) -> None:
    assert RECIPE.kernels is not None
    graph = CompileGraph((*upstream_graph().units, cuda("flash_fwd_hdim512_fp16_sm80.cu")))
    with pytest.raises(BuildError, match="flash_fwd_hdim512_fp16_sm80.cu"):
        classify(RECIPE.kernels, make_plan().selection)(graph)


def test_a_kernel_that_upstream_does_not_have_stops_the_build(make_plan: Callable[..., BuildPlan]) -> None:
    assert RECIPE.kernels is not None
    graph = CompileGraph(upstream_graph().units[:-1])
    with pytest.raises(BuildError, match="no unit for split-hdim256-bf16-causal"):
        classify(RECIPE.kernels, make_plan().selection)(graph)


def test_what_is_left_out_is_empty_and_the_link_still_finds_every_object(make_plan: Callable[..., BuildPlan]) -> None:
    graph = run_all(make_plan(profile="diffusion", head_dims=(64,)), upstream_graph())
    assert [unit.output for unit in graph.units] == [unit.output for unit in upstream_graph().units]
    assert {unit.name for unit in graph.compiled} == {
        "flash_api.cpp",
        *(f"flash_fwd_hdim64_{dtype}{causal}_sm80.cu" for dtype in ("fp16", "bf16") for causal in ("", "_causal")),
    }


@pytest.mark.parametrize("feature", ["alibi", "softcap", "local", "dropout"])
def test_a_feature_left_out_is_a_macro_in_kernels_and_never_in_host_code(
    make_plan: Callable[..., BuildPlan], feature: str
) -> None:
    graph = run_all(make_plan(without=(feature,)), upstream_graph())
    macro = f"-D{RECIPE.features[feature].macro}"
    for unit in graph.units:
        assert (macro in unit.argv) == (unit.language is Language.CUDA)


def test_a_full_wheel_raises_for_nothing_and_has_what_neutral_kernels_call(make_plan: Callable[..., BuildPlan]) -> None:
    graph = run_all(make_plan(), upstream_graph())
    (header,) = [file.text for file in graph.files if file.path == f"/g/{HEADER}"]
    assert "cuda_check" in header
    assert "left_out" not in header
    assert len(graph.compiled) == 73


def test_the_header_is_included_in_the_host_unit_alone(make_plan: Callable[..., BuildPlan]) -> None:
    graph = run_all(make_plan(profile="inference"), upstream_graph())
    assert f"/g/{HEADER}" in [file.path for file in graph.files]
    assert [unit.name for unit in graph.units if f"/g/{HEADER}" in unit.argv] == ["flash_api.cpp"]


def test_what_a_pass_tries_has_the_unit_as_upstream_has_it_to_fall_back_to(make_plan: Callable[..., BuildPlan]) -> None:
    graph = run_all(make_plan(profile="diffusion"), upstream_graph())
    for unit in graph.compiled:
        (plain,) = unit.fallback
        assert not any(word.startswith("-I/g/") for word in plain.argv)
        assert (plain.output, plain.cost_key, plain.module_id) == (unit.output, unit.cost_key, unit.module_id)
        assert any(word.startswith("-ffile-prefix-map=") for word in plain.argv)


def test_each_unit_is_compiled_for_the_target_alone(make_plan: Callable[..., BuildPlan]) -> None:
    graph = run_all(make_plan(gpus=("L40S", "H100")), upstream_graph())
    for unit in graph.compiled:
        if unit.language is Language.CUDA:
            codes = [word for word in unit.argv if "code=" in word]
            # The host's code registers the kernels of the last one, which has them all.
            assert codes == ["arch=compute_90,code=sm_90", "arch=compute_80,code=sm_80"]
            assert "--threads" not in unit.argv


@pytest.mark.parametrize(
    "argv",
    [
        ("-gencode", "arch=compute_80,code=sm_80"),
        ("-gencode=arch=compute_80,code=sm_80",),
        ("--generate-code=arch=compute_80,code=[sm_80,compute_80]",),
        ("--generate-code", "arch=compute_80,code=sm_80"),
        ("-arch=sm_80",),
        ("-arch", "sm_80"),
        ("--gpu-architecture", "compute_80", "--gpu-code", "sm_80"),
        ("--threads=4",),
        ("--threads", "4"),
        ("-t", "4"),
        ("-t=2",),
    ],
)
def test_options_of_architecture_and_threads_are_taken_out_in_every_form(argv: tuple[str, ...]) -> None:
    assert without_architectures(("nvcc", "-O3", *argv, "-c", "a.cu")) == ("nvcc", "-O3", "-c", "a.cu")


@given(st.lists(st.sampled_from(["-O3", "-DX=1", "a.cu", "-I/x", "-std=c++17", "--use_fast_math"])))
def test_other_options_stay_as_they_are(words: list[str]) -> None:
    assert without_architectures(words) == tuple(words)


def test_the_pass_of_architectures_gives_the_same_twice() -> None:
    once = architectures((Architecture.parse("90a"),))
    graph = once(CompileGraph((cuda("a.cu"),)))
    assert once(graph) == graph
    assert "arch=compute_90a,code=sm_90a" in graph.units[0].argv


def test_objects_get_no_paths_and_no_debug_information() -> None:
    graph = reproducible({"/s": "source", "/s/deep": "deep"})(
        CompileGraph(
            (
                cxx("a.cpp"),
                cuda("b.cu", ("nvcc", "-g", "-lineinfo")),
                Unit("/b/e.o", (), (), "/b", Language.CUDA, empty=True),
            )
        )
    )
    host, device, empty = graph.units
    assert "-g" not in host.argv
    assert "-ffile-prefix-map=/s=source" in host.argv
    # gcc takes the last one that matches.
    assert host.argv.index("-ffile-prefix-map=/s/deep=deep") > host.argv.index("-ffile-prefix-map=/s=source")
    assert device.module_id
    assert not host.module_id
    assert {"-g", "-lineinfo"}.isdisjoint(device.argv)
    assert empty.argv == ()


def test_a_module_id_says_nothing_of_the_folder_and_tells_units_apart() -> None:
    here = module_id(Unit("/b/a.o", ("/here/src/a-b.cu",), (), "/b", Language.CUDA), {"/here": "x"})
    there = module_id(Unit("/c/a.o", ("/there/src/a-b.cu",), (), "/c", Language.CUDA), {"/there": "x"})
    other = module_id(Unit("/b/a.o", ("/here/other/a-b.cu",), (), "/b", Language.CUDA), {"/here": "x"})
    assert here == there != other
    assert "_6_a_b_cu_" in here
    assert here.isidentifier()


def test_costs_go_by_kernels_the_dispatch_unit_and_names(make_plan: Callable[..., BuildPlan]) -> None:
    graph = run_all(make_plan(profile="diffusion"), upstream_graph())
    keys = {unit.name: unit.cost_key for unit in graph.compiled}
    assert keys["flash_api.cpp"] == "key dispatch"
    assert keys["flash_fwd_hdim64_fp16_sm80.cu"] == "key forward-hdim64-fp16"
    assert price(str.upper)(CompileGraph((cxx("other.cpp"),))).units[0].cost_key == "OTHER.CPP"


def test_select_leaves_unknown_units_alone(make_plan: Callable[..., BuildPlan]) -> None:
    graph = CompileGraph((cuda("something.cu"), cxx("other.cpp")))
    assert select(make_plan(profile="diffusion").selection, ["X"])(graph) == graph


NVCC_UNIT = cuda("a.cu")


@pytest.mark.parametrize(("cuda", "packed"), [("12.8", False), ("13.0", True), ("14.1", True)])
def test_machine_code_is_compressed_where_every_driver_can_read_it(cuda: str, packed: bool) -> None:
    before = NVCC_UNIT
    (unit,) = compress(cuda)(CompileGraph((before,))).units
    assert ("--compress-mode=size" in unit.argv) == packed
    assert before.argv == unit.argv[: len(before.argv)]


@pytest.mark.parametrize(("compiler", "told"), [("g++ 12.2.0", True), ("clang++ 18.1.0", False)])
def test_gcc_alone_is_told_of_its_heap(compiler: str, told: bool) -> None:
    graph = collect(compiler)(CompileGraph((cxx("a.cpp"), NVCC_UNIT)))
    assert ["--param" in unit.argv for unit in graph.units] == [told, False]


# --- what single units can be compiled for

SAGE = find_recipe("sageattention")
CODES = ("80", "86", "89", "90a", "100a", "120a", "121a")


def codes_of(unit: Unit) -> list[str]:
    """The architectures of a command, in its order."""
    return [word.rpartition("sm_")[2] for word in unit.argv if word.startswith("arch=")]


def retargeted(wanted: Sequence[str], *units: Unit) -> list[list[str]]:
    one = architectures([Architecture.parse(code) for code in wanted], SAGE.unit_architectures)
    return [codes_of(unit) for unit in one(CompileGraph(units)).units]


def test_each_source_is_compiled_for_what_it_can_be() -> None:
    names = [
        "qk_int_sv_f16_cuda_sm80.cu",
        "sm89_qk_int8_sv_f8_accum_f32_attn.cu",
        "qk_int_sv_f8_cuda_sm89.cu",
        "qk_int_sv_f8_cuda_sm90.cu",
        "qk_int_sv_f8_cuda_dsk_sm90.cu",
        "fused.cu",
    ]
    found = dict(zip(names, retargeted(["80", "89", "90a"], *map(cuda, names)), strict=True))
    assert found == {
        "qk_int_sv_f16_cuda_sm80.cu": ["90a", "89", "80"],
        "sm89_qk_int8_sv_f8_accum_f32_attn.cu": ["90a", "89"],
        "qk_int_sv_f8_cuda_sm89.cu": ["90a", "89"],
        "qk_int_sv_f8_cuda_sm90.cu": ["90a"],
        "qk_int_sv_f8_cuda_dsk_sm90.cu": ["90a"],
        "fused.cu": ["90a", "89", "80"],
    }


def test_a_unit_that_no_gpu_of_the_target_can_use_stops_the_build() -> None:
    with pytest.raises(BuildError, match=r"qk_int_sv_f8_cuda_sm90\.cu, which can't be compiled") as caught:
        retargeted(["80", "89"], cuda("qk_int_sv_f8_cuda_sm90.cu"))
    assert "sm_80, sm_89" in caught.value.why


def test_units_that_are_not_compiled_for_gpus_have_no_limits() -> None:
    empty = Unit("/b/x.o", ("/s/qk_int_sv_f8_cuda_sm90.cu",), ("nvcc",), "/b", Language.CUDA, empty=True)
    host = cxx("qk_int_sv_f8_cuda_sm90.cu")
    graph = CompileGraph((empty, host))
    assert architectures([Architecture.parse("80")], SAGE.unit_architectures)(graph) == graph


@given(
    wanted=st.lists(st.sampled_from(CODES), unique=True),
    limits=st.lists(
        st.builds(
            UnitArchitectures,
            units=st.sampled_from(["a.cu", r"\w\.cu", "b.*"]),
            architectures=st.lists(st.sampled_from(CODES), unique=True).map(tuple),
        ),
        max_size=3,
    ),
    name=st.sampled_from(["a.cu", "b.cu", "bb.cu", "xa.cu"]),
)
def test_a_unit_gets_those_of_the_target_that_its_first_limit_allows(
    wanted: list[str], limits: list[UnitArchitectures], name: str
) -> None:
    targets = [Architecture.parse(code) for code in wanted]
    compiled = [one.digits for one in compiled_for(name, targets, limits)]
    matching = {"a.cu": ("a.cu", r"\w\.cu"), "b.cu": (r"\w\.cu", "b.*"), "bb.cu": ("b.*",), "xa.cu": ()}[name]
    allowed = next((limit.architectures for limit in limits if limit.units in matching), CODES)
    assert compiled == [code for code in wanted if code in allowed]


def test_units_whose_objects_are_at_hand_elsewhere_are_left_out() -> None:
    graph = leave(["/s/a.cu", "/s/none.cu"])(CompileGraph((cuda("a.cu"), cuda("b.cu"), cxx("api.cpp"))))
    assert [unit.empty for unit in graph.units] == [True, False, False]
    assert graph.units[0].fallback == ()


def test_units_that_see_pytorch_get_the_standard_that_it_needs() -> None:
    see = ("-I/env/lib/python3.12/site-packages/torch/include", "-std=c++17")
    host = replace(cxx("api.cpp"), argv=("c++", *see))
    kernel = replace(
        cuda("a.cu"), argv=("nvcc", "-isystem", "/x/torch/include/torch/csrc/api/include", "-std", "gnu++14")
    )
    neutral = replace(cuda("b.cu"), argv=("nvcc", "-I/g/lean", "-std=c++17"), fallback=(replace(host, fallback=()),))
    found = standard(20)(CompileGraph((host, kernel, neutral))).units
    assert found[0].argv[-1] == "-std=c++20"
    assert found[1].argv[-2:] == ("-std", "gnu++20")
    assert found[2].argv == neutral.argv and found[2].fallback[0].argv[-1] == "-std=c++20"


@pytest.mark.parametrize(
    ("word", "least", "made"),
    [
        ("-std=c++17", 17, "-std=c++17"),
        ("-std=c++20", 17, "-std=c++20"),
        ("--std=c++11", 17, "--std=c++17"),
        ("-std=c++98", 17, "-std=c++17"),
        ("-std=gnu11", 20, "-std=gnu11"),
        ("c++17", 20, "c++17"),
    ],
)
def test_a_standard_is_raised_and_never_lowered(word: str, least: int, made: str) -> None:
    host = replace(cxx("api.cpp"), argv=("c++", "-I/x/torch/include", word))
    assert standard(least)(CompileGraph((host,))).units[0].argv[-1] == made


@pytest.mark.parametrize(
    ("folder", "given"),
    [
        ("/a/b", "-ffile-prefix-map=/a/b=source"),
        ("/a b", "'-ffile-prefix-map=/a b=source'"),
        ("/a, b", r"'-ffile-prefix-map=/a\, b=source'"),
        ("/a,b", r"-ffile-prefix-map=/a\,b=source"),
    ],
)
def test_nvcc_hands_on_a_folder_with_a_space_or_a_comma(folder: str, given: str) -> None:
    """Its --dryrun (13.0) then shows the folder as it is, in quotes."""
    found = reproducible({folder: "source"})(CompileGraph((cuda("a.cu"), cxx("api.cpp")))).units
    assert found[0].argv[-2:] == ("-Xcompiler", given)
    assert found[1].argv[-1] == f"-ffile-prefix-map={folder}=source"


def test_units_that_share_are_marked_and_keep_their_command() -> None:
    plan = (Shared(of="80", code="90", units=("forward-hdim64-fp16", "a.cu"), proof="0" * 64),)
    known = replace(cuda("x.cu"), kernel="forward-hdim64-fp16")
    merged = replace(known, kernel="forward-hdim64-fp16+forward-hdim96-fp16")
    graph = CompileGraph((known, merged, cuda("a.cu"), cuda("b.cu"), cxx("a.cu"), replace(known, empty=True)))
    marked = share(plan)(graph)
    pair = (("sm_90", "sm_80"),)
    assert [unit.shares for unit in marked.units] == [pair, (), pair, (), (), ()]
    assert [unit.argv for unit in marked.units] == [unit.argv for unit in graph.units]


def test_a_unit_that_is_compiled_for_one_of_both_shares_nothing() -> None:
    plan = (Shared(of="80", code="90", units=("a.cu",), proof="0" * 64),)
    alone = cuda("a.cu", ("nvcc", "-c", "-gencode", "arch=compute_90,code=sm_90"))
    assert share(plan)(CompileGraph((alone,))).units[0].shares == ()


def test_what_a_unit_falls_back_to_shares_too() -> None:
    plan = (Shared(of="80", code="90", units=("a.cu",), proof="0" * 64),)
    graph = share(plan)(CompileGraph((replace(cuda("b.cu"), fallback=(cuda("a.cu"),)),)))
    assert graph.units[0].fallback[0].shares == (("sm_90", "sm_80"),)
