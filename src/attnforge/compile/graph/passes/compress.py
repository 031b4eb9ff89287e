"""Compresses the machine code in objects: wheels and installed packages get smaller, the code is the same."""

from __future__ import annotations

from attnforge.compile.graph.each import adding, unchanged
from attnforge.model.graph import Language, Pass

# Zstandard images need a driver of CUDA 12.4 or later (nvcc's manual, --compress-mode); every driver that runs CUDA 13
# is. With a toolkit of CUDA 12 a wheel may meet an older driver.
_FIRST_MAJOR = 13


def compress(cuda: str) -> Pass:
    """Return the pass that has nvcc of a CUDA version (``13.0``) compress machine code for size, where drivers can."""
    is_possible = int(cuda.partition(".")[0]) >= _FIRST_MAJOR
    return adding(["--compress-mode=size"], Language.CUDA) if is_possible else unchanged
