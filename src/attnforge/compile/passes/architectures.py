"""Gives each unit just the architectures that the target needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from attnforge.model.graph import CompileGraph, Language, Pass, Unit
from attnforge.model.target import Architecture

_JOINED = (
    "-gencode=",
    "--generate-code=",
    "-arch=",
    "--gpu-architecture=",
    "-code=",
    "--gpu-code=",
    "--threads=",
    "-t=",
)
_SEPARATE = (
    "-gencode",
    "--generate-code",
    "-arch",
    "--gpu-architecture",
    "-code",
    "--gpu-code",
    "--threads",
    "-t",
)


def architectures(wanted: Sequence[Architecture]) -> Pass:
    """Return the pass that compiles every CUDA unit for ``wanted`` (machine code, no PTX), one after the other.

    The lowest comes last: the host's code registers the kernels of the last one, and a recipe may leave kernels out of
    the code for later architectures (nvcc lets each architecture's compile write the same stub file).
    ``--threads`` goes too: it holds one device compiler for each architecture in memory at once (four times the
    memory with four, measured), and the scheduler already fills the slots.
    """
    flags = tuple(
        word
        for architecture in sorted(wanted, reverse=True)
        for word in ("-gencode", f"arch=compute_{architecture.digits},code={architecture.sm}")
    )

    def retarget(unit: Unit) -> Unit:
        if unit.language not in (Language.CUDA, Language.DEVICE_LINK) or unit.empty:
            return unit
        return replace(unit, argv=(*without_architectures(unit.argv), *flags))

    def apply(graph: CompileGraph) -> CompileGraph:
        return graph.map(retarget)

    return apply


def without_architectures(argv: Sequence[str]) -> tuple[str, ...]:
    """Return an nvcc call without the options that choose architectures or threads."""
    kept: list[str] = []
    skip = False
    for word in argv:
        if skip:
            skip = False
        elif word in _SEPARATE:
            skip = True
        elif not word.startswith(_JOINED):
            kept.append(word)
    return tuple(kept)
