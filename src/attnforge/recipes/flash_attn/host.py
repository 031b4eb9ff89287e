"""FlashAttention 2: the part of PyTorch's headers that flash_api.cpp uses.

flash_api.cpp includes torch/python.h and torch/nn/functional.h, and with them all of PyTorch's C++ interface: most of
what its compile takes is reading it. It uses tensors, a few operators, pad and the Python bindings. Headers of ours in
front of PyTorch's include just these, from the real PyTorch. Measured with 2.11.0: the same 256 functions in the
object, 27 s of CPU instead of 37 (docs/performance.md). A PyTorch with other headers is compiled whole:
the unchanged unit is the fallback.
"""

from __future__ import annotations

from dataclasses import replace

from attnforge.model.graph import CompileGraph, GeneratedFile, Pass, Unit
from attnforge.recipes.cxx import cxx


def lean_host(unit_name: str, folder: str) -> Pass:
    """Return the pass that compiles one host unit with fewer of PyTorch's headers, which go into ``folder``."""

    def change(unit: Unit) -> Unit:
        if unit.name != unit_name or unit.empty:
            return unit
        argv = (unit.argv[0], f"-I{folder}", "-DAT_PER_OPERATOR_HEADERS", *unit.argv[1:])
        return replace(unit, argv=argv, fallback=(unit,))

    files = (
        GeneratedFile(f"{folder}/torch/python.h", cxx("flash_attn/cxx/python.h")),
        # torch/types.h of PyTorch includes all operators and the registration of new ones.
        GeneratedFile(f"{folder}/torch/types.h", cxx("flash_attn/cxx/types.h")),
        GeneratedFile(f"{folder}/torch/nn/functional.h", cxx("flash_attn/cxx/functional.h")),
    )

    def apply(graph: CompileGraph) -> CompileGraph:
        changed = graph.map(change)
        return changed.with_files(*files) if changed != graph else graph

    return apply
