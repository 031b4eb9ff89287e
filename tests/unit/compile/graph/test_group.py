from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.compile.graph.passes.architectures import architectures
from attnforge.compile.graph.passes.group import group, obstacles
from attnforge.compile.graph.passes.price import price
from attnforge.compile.graph.passes.reproducible import reproducible
from attnforge.model.graph import CompileGraph, Language, Unit
from attnforge.model.target import Architecture

# As flash_attn/src/generate_kernels.py of 2.8.3 writes them.
SPECIALIZATION = """\
// Copyright (c) 2024, Tri Dao. See "generate_kernels.py"
#include "namespace_config.h"
#include "flash_fwd_launch_template.h"

namespace FLASH_NAMESPACE {

template<>
void run_mha_fwd_<cutlass::bfloat16_t, 64, true>(Flash_fwd_params &params, cudaStream_t stream) {
    run_mha_fwd_hdim64<cutlass::bfloat16_t, true>(params, stream);
}

} // namespace FLASH_NAMESPACE"""
INSTANTIATION = """\
#include "flash_fwd_launch_template.h"
namespace FLASH_NAMESPACE {
template void run_mha_fwd_splitkv_dispatch<cutlass::half_t, 64, false>(Flash_fwd_params &params, cudaStream_t stream);
} // namespace FLASH_NAMESPACE
"""
NAMES = ("a", "b", "c")


def unit(name: str, **changes: object) -> Unit:
    argv = ("nvcc", "-O3", "-MF", f"/b/{name}.o.d", "-c", f"/s/{name}.cu", "-o", f"/b/{name}.o", "-DX")
    made = Unit(f"/b/{name}.o", (f"/s/{name}.cu",), argv, "/b", Language.CUDA, depfile=f"/b/{name}.o.d", kernel=name)
    return replace(made, **changes)  # type: ignore[arg-type]


def merged(
    units: tuple[Unit, ...], texts: Mapping[str, str] | None = None, groups: tuple[tuple[str, ...], ...] = (NAMES,)
) -> CompileGraph:
    def read(path: str) -> str:
        return (texts or {}).get(Path(path).stem, SPECIALIZATION)

    return group(groups, "/g", read)(CompileGraph(units))


UNITS = tuple(unit(name) for name in NAMES)


# --- what a source may have at namespace scope


@pytest.mark.parametrize(
    "text",
    [
        "",
        SPECIALIZATION,
        INSTANTIATION,
        '#pragma once\n#include <a.h>\n  # include "b.h" // why\n',
        "namespace a { namespace b::c { inline namespace d { template<> struct S<int> { static int x; }; } } }",
        "template <> void f<int>() { static int x = 1; using namespace std; if (x) { g(); } }",
        "template<>\n__global__ void f<int>(int *x) { __shared__ int s[4]; *x = s[0]; }",
        "template class Kernel<64>;;",
        "#include <a.h>\n#ifndef DISABLE_64\ntemplate class Kernel<64>;\n#endif\n",
        "#if defined(A) && B > 1\ntemplate<> void f<1>() {}\n#elif C\n#else\ntemplate<> void f<2>() {}\n#endif",
        '/* namespace { */ // static int x;\ntemplate<> const char *f<1>() { return "static int x; } #define {"; }',
        'template<> const char *f<1>() { return R"x(} " static )x"; }',
        "template<> char f<1>() { return '{'; }\ntemplate<> int f<2>() { return 1'000'000; }",
        "template<> void f<1>()  \\\n { }",
    ],
)
def test_what_brings_no_name_into_being_can_be_merged(text: str) -> None:
    assert obstacles(text) == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("#define N 4", "directive #define N 4"),
        ("#undef N", "directive"),
        ('#ifdef A\n#include "a.h"\n#endif', "directive #ifdef A"),
        ("#include <a.h>\n#ifdef A\n#define B\n#endif", "directive #define B"),
        ("#ifdef A\nnamespace a {\n#else\nnamespace b {\n#endif\n}", "do not end"),
        ("#pragma nv_diag_suppress 177", "directive"),
        ("#pragma \\\nunroll", "directive"),
        ("#line 4", "directive"),
        ("/* */ #define N 4", "directive"),
        ("namespace { int x; }", "anonymous namespace"),
        ("namespace a {\nnamespace\n{ void f(); } }", "anonymous namespace"),
        ("using namespace cute;", "using-directive using namespace cute"),
        ("namespace a { using namespace cute; }", "using-directive"),
        ("static int x;", "static name static int x"),
        ("static __global__ void f() {}", "static name"),
        ("__constant__ float table[4];", "device variable"),
        ("__device__ int counter = 0;", "device variable"),
        ("__device__ int numbers[2] = {1, 2};", "device variable"),
        ("__managed__ int x;", "device variable"),
        ("using T = float;", "declaration using T = float"),
        ("typedef float T;", "declaration"),
        ("constexpr int N = 4;", "declaration constexpr int N"),
        ("void helper(double);", "declaration void helper"),
        ("template<int N> void f() {}", "declaration template<int N>"),
        ("extern template class Kernel<64>;", "declaration extern template"),
        ("struct S {};", "declaration struct S"),
        ('extern "C" void f();', "declaration"),
        ('_Pragma("once") template<> void f<1>() {}', "declaration"),
        ("namespace a = b;", "declaration"),
        ("namespace a {", "do not end"),
        ("}", "do not end"),
        ("} namespace a {", "do not end"),
        ("namespace a { template<> void f<1>() }", "do not end"),
        ("template<> void f<1>() {", "do not end"),
        ("template<> void f<1>()", "do not end"),
    ],
)
def test_what_could_touch_another_unit_stays_apart(text: str, reason: str) -> None:
    assert any(reason in found for found in obstacles(text))
    assert len(obstacles(f"{SPECIALIZATION}\n{text}")) == 1


def test_every_reason_is_told() -> None:
    assert len(obstacles("#define N 4\nstatic int x;\nusing namespace cute;\nint y;")) == 4


@given(st.text(alphabet="{};\"'\\/*#\n template<>namespcRx()", max_size=80))
def test_any_text_is_looked_at(text: str) -> None:
    assert all(isinstance(reason, str) and reason for reason in obstacles(text))


@given(st.text(alphabet="{};'\"#abc \n", max_size=40).filter(lambda text: "*/" not in text))
def test_comments_count_for_nothing(text: str) -> None:
    assert obstacles(f"/*{text}*/{SPECIALIZATION}") == ()


# --- merging


def test_a_group_is_one_unit_and_the_link_finds_every_object() -> None:
    graph = merged((unit("x"), *UNITS, unit("y")))
    first, joint, *empty, last = graph.units
    assert [one.output for one in graph.units] == ["/b/x.o", "/b/a.o", "/b/b.o", "/b/c.o", "/b/y.o"]
    assert (first, last) == (unit("x"), unit("y"))
    assert all(one.empty for one in empty)
    assert joint.members == ("/b/b.o", "/b/c.o")
    assert joint.fallback == UNITS
    assert joint.kernel == "a+b+c"
    (file,) = graph.files
    assert file.text == '#include "/s/a.cu"\n#include "/s/b.cu"\n#include "/s/c.cu"\n'
    assert joint.sources == (file.path, "/s/a.cu", "/s/b.cu", "/s/c.cu")
    assert joint.argv == ("nvcc", "-O3", "-MF", "/b/a.o.d", "-c", file.path, "-o", "/b/a.o", "-DX")


def test_the_name_of_the_file_follows_from_its_kernels() -> None:
    here, there = merged(UNITS), merged(tuple(replace(one, cwd="/elsewhere") for one in UNITS))
    assert here.files[0].path == there.files[0].path
    assert merged(UNITS, groups=(("a", "b"),)).files[0].path != here.files[0].path


def test_the_order_is_that_of_the_group() -> None:
    graph = merged(tuple(reversed(UNITS)))
    assert [one.output for one in graph.compiled] == ["/b/a.o"]


def test_no_groups_change_nothing() -> None:
    assert merged(UNITS, groups=()) == CompileGraph(UNITS)


def test_a_group_merges_what_there_is_of_it() -> None:
    assert merged(UNITS[:1]) == CompileGraph(UNITS[:1])
    assert [one.members for one in merged(UNITS[:2]).compiled] == [("/b/b.o",)]


def test_several_groups() -> None:
    units = tuple(unit(name) for name in "abcd")
    graph = merged(units, groups=(("a", "c"), ("b", "d")))
    assert [one.kernel for one in graph.compiled] == ["a+c", "b+d"]
    assert len({file.path for file in graph.files}) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"cwd": "/other"},
        {"language": Language.CXX},
        {"language": Language.OTHER},
        {"needs": ("/b/header.h",)},
        {"empty": True},
        {"sources": ("/s/c.cu", "/s/d.cu")},
        {"sources": ("/t/c.cu",), "argv": ("nvcc", "-O3", "-MF", "/b/c.o.d", "-c", "/t/c.cu", "-o", "/b/c.o", "-DX")},
        {"argv": ("nvcc", "-O2", "-MF", "/b/c.o.d", "-c", "/s/c.cu", "-o", "/b/c.o", "-DX")},
        {"argv": ("nvcc", "-O3", "-MF", "/b/c.o.d", "-c", "/s/c.cu", "-o", "/b/c.o")},
        {"argv": ("nvcc", "-O3", "-c", "/s/c.cu", "-o", "/b/c.o", "-DX")},
        {"argv": ("sh", "-c", "nvcc /s/c.cu")},
        {"argv": ("nvcc", "-O3", "/s/c.cu", "-c", "/s/c.cu", "-o", "/b/c.o", "-DX")},
    ],
)
def test_a_unit_with_another_command_stays_apart(changes: dict[str, object]) -> None:
    odd = unit("c", **changes)
    graph = merged((*UNITS[:2], odd))
    assert graph.units[2] == odd
    assert graph.units[0].members == ("/b/b.o",)


@pytest.mark.parametrize("text", ["#define N 4", "static int x;", '#include "other.h"', SPECIALIZATION + "\n}"])
def test_a_unit_whose_source_could_touch_another_stays_apart(text: str) -> None:
    graph = merged(UNITS, {"c": text})
    assert graph.units[2] == UNITS[2]
    assert graph.units[0].members == ("/b/b.o",)


@pytest.mark.parametrize("error", [FileNotFoundError("/s/a.cu"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")])
def test_a_source_that_can_not_be_read_stays_apart(error: Exception) -> None:
    def read(path: str) -> str:
        raise error

    assert group((NAMES,), "/g", read)(CompileGraph(UNITS)) == CompileGraph(UNITS)


@pytest.mark.parametrize("name", ['quote"', "back\\slash", "new\nline"])
def test_a_path_that_an_include_can_not_name_stays_apart(name: str) -> None:
    graph = merged((*UNITS[:2], unit(name, kernel="c")))
    assert graph.units[0].members == ("/b/b.o",)


def test_relative_paths_in_commands_are_understood() -> None:
    units = tuple(
        unit(name, argv=("nvcc", "-c", f"../s/{name}.cu", "--output-file", f"{name}.o")) for name in NAMES[:2]
    )
    joint = merged(units).units[0]
    assert joint.argv == ("nvcc", "-c", joint.sources[0], "--output-file", "a.o")


def test_later_passes_reach_the_group_and_its_fallback() -> None:
    graph = merged(UNITS)
    for one in (
        architectures((Architecture.parse("90"),)),
        price(lambda what: f"key {what}"),
        reproducible({"/s": "s"}),
    ):
        graph = one(graph)
    joint = graph.units[0]
    assert joint.cost_key == "key a+b+c"
    assert [one.cost_key for one in joint.fallback] == ["key a", "key b", "key c"]
    assert all("arch=compute_90,code=sm_90" in one.argv for one in (joint, *joint.fallback))
    assert len({one.module_id for one in (joint, *joint.fallback)}) == 4


@pytest.mark.compile
def test_a_merged_source_compiles_to_the_same_functions(tmp_path: Path) -> None:
    header = "#pragma once\nnamespace n { template<int N> void f(int *); template<int N> void g(int *x) { *x = N; } }\n"
    (tmp_path / "f.h").write_text(header)
    units = []
    for number, name in enumerate(NAMES):
        source, output = tmp_path / f"{name}.cu", tmp_path / f"{name}.o"
        source.write_text(
            f'#include "f.h"\nnamespace n {{ template<> void f<{number}>(int *x) {{ g<{number}>(x); }} }}\n'
        )
        argv = ("c++", "-x", "c++", "-c", str(source), "-o", str(output))
        units.append(Unit(str(output), (str(source),), argv, str(tmp_path), Language.CUDA, kernel=name))
    graph = group((NAMES,), str(tmp_path), lambda path: Path(path).read_text())(CompileGraph(tuple(units)))
    Path(graph.files[0].path).write_text(graph.files[0].text)
    joint = graph.units[0]
    apart = set()
    for one in joint.fallback:
        subprocess.run(one.argv, cwd=one.cwd, check=True)
        apart |= defined(one.output)
    subprocess.run(joint.argv, cwd=joint.cwd, check=True)
    assert defined(joint.output) == apart
    assert len(apart) == 6


def defined(path: str) -> set[str]:
    listed = subprocess.run(
        ("nm", "--defined-only", "--format=posix", path), capture_output=True, text=True, check=True
    )
    return {line.split()[0] for line in listed.stdout.splitlines()}
