"""Compiles each unit for the architectures that the target needs, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from attnforge.compile.graph.each import each
from attnforge.errors import BuildError
from attnforge.model.graph import Language, Pass, Unit
from attnforge.model.release import UnitArchitectures, compiled_for
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


def architectures(wanted: Sequence[Architecture], limits: Sequence[UnitArchitectures] = ()) -> Pass:
    """Return the pass that compiles every CUDA unit for ``wanted`` (machine code, no PTX), one after the other.

    A unit that one of ``limits`` names is compiled only for the architectures that it supports; BuildError if there are
    none. (SageAttention 2 gives all units one list: SA#291, ``wgmma not supported on .target``.)

    The lowest comes last: the host's code registers the kernels of the last one, and a recipe may leave kernels out of
    the code for later architectures (nvcc lets each architecture's compile write the same stub file).
    ``--threads`` goes too: it holds one device compiler for each architecture in memory at once (four times the
    memory with four, measured), and the scheduler already fills the slots.
    """

    def retarget(unit: Unit) -> Unit:
        flags = tuple(
            word
            for architecture in sorted(_for_unit(unit.name, wanted, limits), reverse=True)
            for word in ("-gencode", f"arch=compute_{architecture.digits},code={architecture.sm}")
        )
        return replace(unit, argv=(*without_architectures(unit.argv), *flags))

    return each(retarget, Language.CUDA, Language.DEVICE_LINK)


def _for_unit(name: str, wanted: Sequence[Architecture], limits: Sequence[UnitArchitectures]) -> Sequence[Architecture]:
    """Return the target's architectures that a unit is compiled for."""
    chosen = compiled_for(name, wanted, limits)
    if wanted and not chosen:
        raise BuildError(
            f"upstream's build has {name}, which can't be compiled for any GPU of the target",
            why="by the recipe it does not support " + ", ".join(architecture.sm for architecture in wanted),
            hint="name a GPU that it supports, too (`attnforge packages` lists them)",
        )
    return chosen


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
