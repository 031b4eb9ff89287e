"""FlashAttention 2: units of kernels that need neither PyTorch nor Python.

Kernels take three things from PyTorch: the state of its Philox generator, the function that unpacks it, and an error
macro. Headers of ours replace these (`-I` first), so that one object serves every PyTorch and Python with that layout
of the state. The real PyTorch is asked for the layout before anything is compiled, and a static_assert checks it again
in flash_api.cpp's unit. The error macro calls a function of ours, which is in flash_api.cpp's unit: the symbol behind
C10_CUDA_CHECK changes between PyTorch's releases.

In a universal wheel the kernels are in a library that knows no PyTorch. There the error macro's function is in a unit
of ours (``LIBRARY``). It passes an error to the function that flash_api.cpp's unit has given it, so that a user sees
PyTorch's own exception; without one it throws std::runtime_error. That unit also has one function whose name is made
of sizes and offsets of what crosses the boundary, as kernels see it. flash_api.cpp's unit refers to it by what it sees:
where they differ, nothing has that name, and the module can't be made.

The C++ is in ``cxx/``. Each text includes what it uses, because what is built decides which texts are in one file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from attnforge.model.graph import CompileGraph, GeneratedFile, Language, Pass, Unit
from attnforge.recipes.cxx import cxx

CHECK = "void cuda_check(cudaError_t error, const char *file, const char *function, unsigned line)"
"""The function that the neutral error macro calls."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a PyTorch lays out at::PhiloxCudaState: ``intragraph`` is the type of offset_intragraph_."""

    name: str
    intragraph: str
    captured_at: int
    size: int


# c10's and ATen's history: PyTorch widened offset_intragraph_ from 32 to 64 bits. Both are asked for, none is assumed.
LAYOUTS = (Layout("philox-64", "uint64_t", 24, 32), Layout("philox-32", "uint32_t", 20, 24))


LIBRARY = "attnforge_kernels.cu"
"""The name of our unit in the kernels library of a universal wheel."""


def questions() -> dict[str, str]:
    """Return, by the name of each layout, C++ text that compiles where the PyTorch has it."""
    return {layout.name: asserts(layout) for layout in LAYOUTS}


def asserts(layout: Layout) -> str:
    """Return the C++ that asserts the layout of a PyTorch."""
    return cxx(
        "flash_attn/cxx/layout.h", size=layout.size, intragraph=layout.intragraph, captured_at=layout.captured_at
    )


def check_function(layout: Layout) -> str:
    """Return the C++ that flash_api.cpp's unit gets, where the real PyTorch is."""
    return cxx("flash_attn/cxx/check.h", check=CHECK, asserts=asserts(layout))


def joining_function(layout: Layout) -> str:
    """Return the C++ that flash_api.cpp's unit gets in a universal wheel, where the kernels are in a library."""
    return cxx("flash_attn/cxx/joining.h", boundary=cxx("flash_attn/cxx/boundary.h"), asserts=asserts(layout))


def library_unit(folder: str) -> Pass:
    """Return the pass that adds our unit of the kernels library; it comes after ``lean``, of the same ``folder``.

    It is compiled as the first kernel's unit is. Upstream's link step does not know it.
    """
    path = f"{folder}/{LIBRARY}"

    def apply(graph: CompileGraph) -> CompileGraph:
        like = next((unit for unit in graph.units if _is_lean(unit, folder)), None)
        if like is None:
            return graph
        output = str(PurePosixPath(folder) / f"{LIBRARY}.o")
        renamed = {like.sources[0]: path, like.output: output, like.depfile: f"{output}.d"}
        argv = tuple(renamed.get(word, word) if word else word for word in _without_headers(like.argv))
        unit = Unit(output, (path,), argv, like.cwd, Language.CUDA, depfile=f"{output}.d", ignores=like.ignores)
        text = cxx("flash_attn/cxx/library.cu", boundary=cxx("flash_attn/cxx/boundary.h"), check=CHECK)
        return replace(graph, units=(*graph.units, unit)).with_files(GeneratedFile(path, text))

    return apply


def _is_lean(unit: Unit, folder: str) -> bool:
    return f"-I{folder}" in unit.argv and unit.language is Language.CUDA and not unit.empty


def _without_headers(argv: Sequence[str]) -> tuple[str, ...]:
    """Return a command without the files that it includes first."""
    return tuple(word for before, word in zip(("", *argv), argv, strict=False) if "-include" not in (before, word))


def neutral_headers(folder: str, layout: Layout) -> tuple[GeneratedFile, ...]:
    """Return the headers that stand for PyTorch's, in ``folder``."""
    return (
        GeneratedFile(f"{folder}/c10/cuda/CUDAException.h", cxx("flash_attn/cxx/exception.h")),
        GeneratedFile(
            f"{folder}/ATen/cuda/CUDAGeneratorImpl.h", cxx("flash_attn/cxx/state.h", intragraph=layout.intragraph)
        ),
        GeneratedFile(f"{folder}/ATen/cuda/detail/UnpackRaw.cuh", cxx("flash_attn/cxx/unpack.h")),
        # FlashAttention 2.6 asks PyTorch for the compute capability. It gets unpack() and the error macro through other
        # headers.
        GeneratedFile(f"{folder}/ATen/cuda/CUDAContext.h", cxx("flash_attn/cxx/context.h")),
        GeneratedFile(f"{folder}/ATen/cuda/CUDAGraphsUtils.cuh", cxx("flash_attn/cxx/graphs.h")),
    )
