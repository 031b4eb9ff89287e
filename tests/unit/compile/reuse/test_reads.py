"""Which folders a compile read, and what that says of its object."""

from __future__ import annotations

import pytest

from attnforge.compile.reuse.reads import folders_of, is_neutral
from attnforge.compile.run.work import Batch, product
from attnforge.model.graph import CompileGraph, Language, Unit


def test_files_go_by_the_folder_that_has_a_name() -> None:
    names = ["source/csrc/a.cu", "cuda/include/cuda.h", "site-packages/torch/include/a.h", "/usr/include/stdio.h"]
    assert folders_of(names) == {"source", "cuda", "site-packages", "system"}


@pytest.mark.parametrize("name", ["/usr/include/python3.11/Python.h", "/opt/lib/python3.13t/x.h"])
def test_a_python_among_the_systems_headers_is_python(name: str) -> None:
    assert folders_of([name]) == {"python"}


@pytest.mark.parametrize("folder", ["site-packages", "environment", "python"])
def test_an_object_that_read_pytorch_or_python_is_bound_to_it(folder: str) -> None:
    assert not is_neutral({"source", folder})


def test_an_object_that_read_neither_is_neutral_and_one_of_which_nothing_is_known_is_not() -> None:
    assert is_neutral({"source", "cuda", "generated", "system"})
    assert not is_neutral(None)


def test_a_product_names_upstreams_sources_also_of_what_was_merged_into_it() -> None:
    units = [Unit(f"/b/{name}.o", (f"/s/{name}.cu",), ("nvcc",), "/b", Language.CUDA) for name in "abc"]
    merged = Unit("/b/a.o", ("/g/merged.cu",), ("nvcc",), "/b", Language.CUDA, members=("/b/a.o", "/b/b.o"))
    received, graph = CompileGraph(tuple(units)), CompileGraph((merged,))
    batch = Batch(3, received, graph, (), {}, lambda _: None)
    made = product(merged, batch, "compiled", frozenset({"source"}))
    assert (made.call, made.sources) == (3, ("/s/a.cu", "/s/b.cu"))
    ours = Unit("/g/own.o", ("/g/own.cu",), ("nvcc",), "/b", Language.CUDA)
    assert product(ours, batch, "compiled", None).sources == ("/g/own.cu",)
