"""Parts of FlashAttention 2's units: headers that take one branch of upstream's switches."""

from __future__ import annotations

import shutil
import subprocess
from itertools import product
from pathlib import Path

import pytest

from attnforge.compile.graph.passes.group import group
from attnforge.model.amounts import Cut
from attnforge.model.graph import CompileGraph, Language, Unit
from attnforge.model.parts import Parted, features_of
from attnforge.recipes.catalogue import find_recipe
from attnforge.recipes.flash_attn.parts import in_parts, index_header, part_header

CXX = shutil.which("g++")
RECIPE = find_recipe("flash-attn")
CUTS = [(cost.kind, cut) for cost in RECIPE.costs for cut in cost.cuts]
HALVES = ("softcap", "no-softcap")


def unit(kernel: str, **changes: object) -> Unit:
    source = f"/s/{kernel}.cu"
    argv = ("nvcc", "-c", source, "-o", f"/b/{kernel}.o")
    return Unit(f"/b/{kernel}.o", (source,), argv, "/b", Language.CUDA, kernel=kernel, **changes)  # type: ignore[arg-type]


# --- the recipe's cuts


@pytest.mark.parametrize(("kind", "cut"), CUTS, ids=[f"{kind} {len(cut.parts)}" for kind, cut in CUTS])
def test_each_kernel_is_in_one_part(kind: str, cut: Cut) -> None:
    for values in product((False, True), repeat=len(cut.features)):
        kernel = dict(zip(sorted(cut.features), values, strict=True))
        assert sum(features_of(part).items() <= kernel.items() for part in cut.parts) == 1
    assert sum(cut.parts.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(("kind", "cut"), CUTS, ids=[f"{kind} {len(cut.parts)}" for kind, cut in CUTS])
def test_kernels_are_divided_by_features_that_are_in_them_and_can_be_left_out(kind: str, cut: Cut) -> None:
    assert all(RECIPE.features[name].macro for name in cut.features)
    assert not (kind == "split" and "dropout" in cut.features)


# --- the pass


def test_units_of_the_plan_are_compiled_in_parts_and_else_at_once() -> None:
    units = (unit("split-hdim64-fp16"), unit("split-hdim32-fp16"), unit("forward-hdim64-fp16", empty=True))
    parted = [Parted(unit=one.kernel, parts=HALVES) for one in (units[0], units[2])]
    graph = in_parts("/g", parted)(CompileGraph(units))
    made, *others = graph.units
    assert others == list(units[1:])
    assert made.parts is not None
    assert (made.argv, made.fallback) == (units[0].argv, (units[0],))
    texts = {file.path: file.text for file in graph.files}
    assert texts[made.parts.index] == index_header("split")
    assert [texts[path] for path in made.parts.headers] == [part_header(part) for part in HALVES]


def test_merged_units_are_compiled_in_parts_where_all_of_them_are() -> None:
    names = [f"forward-hdim64-{dtype}{causal}" for dtype in ("bf16", "fp16") for causal in ("", "-causal")]
    parted = [Parted(unit=name, parts=HALVES) for name in names[:3]]
    divided = in_parts("/g", parted)(CompileGraph(tuple(map(unit, names))))
    first, second = (group([names[:2], names[2:]], "/m", lambda path: "")(divided).units[at] for at in (0, 2))
    assert first.parts == divided.units[0].parts
    assert first.members == (divided.units[1].output,)
    assert not second.members
    assert second.parts == divided.units[2].parts


# --- the headers

SWITCHES = """
#pragma once
#define BOOL_SWITCH(COND, CONST_NAME, ...) [&] { \\
    if (COND) { constexpr static bool CONST_NAME = true; return __VA_ARGS__(); } \\
    else { constexpr static bool CONST_NAME = false; return __VA_ARGS__(); } }()
#define SOFTCAP_SWITCH BOOL_SWITCH
#define DROPOUT_SWITCH BOOL_SWITCH
"""
LAUNCHER = """
#include <cstdio>
#include "static_switch.h"
template<bool Is_dropout, bool Is_softcap> void kernel() { std::printf("%d%d ", Is_dropout, Is_softcap); }
int main() {
    for (int call = 0; call < 4; ++call) {
        DROPOUT_SWITCH(call / 2 > 0, Is_dropout, [&] {
            SOFTCAP_SWITCH(call % 2 > 0, Is_softcap, [&] { kernel<Is_dropout, Is_softcap>(); });
        });
    }
}
"""


@pytest.mark.skipif(CXX is None, reason="no g++")
@pytest.mark.parametrize(
    ("part", "kernels"),
    [
        ("softcap", {"01", "11"}),
        ("no-softcap", {"00", "10"}),
        ("dropout", {"10", "11"}),
        ("no-dropout+softcap", {"01"}),
        ("no-dropout+no-softcap", {"00"}),
    ],
)
def test_a_header_takes_one_branch_of_each_of_its_switches(part: str, kernels: set[str], tmp_path: Path) -> None:
    (tmp_path / "static_switch.h").write_text(SWITCHES)
    (tmp_path / "part.h").write_text(part_header(part))
    (tmp_path / "a.cpp").write_text(LAUNCHER)
    command = [str(CXX), "-std=c++17", "-include", "part.h", "-I.", "a.cpp", "-o", "a.out"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    ran = subprocess.run([str(tmp_path / "a.out")], check=True, capture_output=True, text=True)
    assert set(ran.stdout.split()) == kernels
