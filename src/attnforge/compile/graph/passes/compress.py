"""Packs the machine code in objects: the wheel and what is installed from it get smaller, the code is the same."""

from __future__ import annotations

from dataclasses import replace

from attnforge.model.graph import CompileGraph, Language, Pass, Unit

# Zstandard images need a driver of CUDA 12.4 or later (nvcc's manual, --compress-mode); every driver that runs CUDA 13
# is. With a toolkit of CUDA 12 a wheel may meet an older driver.
_FIRST_MAJOR = 13


def compress(cuda: str) -> Pass:
    """Return the pass that has nvcc of a CUDA version (``13.0``) compress machine code for size, where drivers can."""

    def pack(unit: Unit) -> Unit:
        if unit.language is not Language.CUDA or unit.empty:
            return unit
        return replace(unit, argv=(*unit.argv, "--compress-mode=size"))

    def apply(graph: CompileGraph) -> CompileGraph:
        return graph.map(pack) if int(cuda.partition(".")[0]) >= _FIRST_MAJOR else graph

    return apply
