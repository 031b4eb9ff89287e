"""Passes that change each unit by itself."""

from __future__ import annotations

from dataclasses import replace

from attnforge.compile.graph.each import adding, each, unchanged
from attnforge.model.graph import CompileGraph, Language, Unit


def unit(name: str, language: Language, **changes: object) -> Unit:
    return replace(Unit(f"/b/{name}.o", (f"/s/{name}",), ("cc",), "/b", language), **changes)  # type: ignore[arg-type]


CUDA, CXX = unit("a.cu", Language.CUDA), unit("b.cpp", Language.CXX)
EMPTY = unit("c.cu", Language.CUDA, empty=True)
GRAPH = CompileGraph((CUDA, CXX, EMPTY, unit("d.cu", Language.CUDA, fallback=(CUDA,))))


def kernels(change: CompileGraph) -> list[str]:
    return [one.kernel for one in change.units]


def test_units_that_are_compiled_are_changed_and_what_they_fall_back_to() -> None:
    found = each(lambda unit: replace(unit, kernel="k"))(GRAPH)
    assert kernels(found) == ["k", "k", "", "k"]
    assert found.units[3].fallback[0].kernel == "k"


def test_only_units_of_the_named_languages_are_changed() -> None:
    assert kernels(each(lambda unit: replace(unit, kernel="k"), Language.CXX)(GRAPH)) == ["", "k", "", ""]


def test_words_are_added_at_the_end_of_commands() -> None:
    found = adding(["-x", "-y"], Language.CUDA)(GRAPH)
    assert [one.argv[1:] for one in found.units] == [("-x", "-y"), (), (), ("-x", "-y")]
    assert unchanged(GRAPH) is GRAPH
