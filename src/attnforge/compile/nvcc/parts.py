"""Compiles the kernels of a unit in parts, and makes of their PTX what one run of cicc would have written.

Optimizing is most of what cicc does, and it does that function by function. So cicc can be run several times at once,
each time with a header that leaves the kernels of the other parts out (a recipe knows how), and the functions are put
together afterwards. One more run is the index: it has every kernel, without its body, and takes a few seconds. It says
in which order cicc writes the functions, and has the stub for the host's code.

The result has to be whole: the parts have exactly the functions of the index, all of them have the same declarations,
and a function that is in several parts is the same in each. Otherwise cicc runs as without parts. The steps after it
get the same input either way. Names of internal linkage hold the module id, which all runs share.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path, PurePosixPath

from attnforge.compile.nvcc.dryrun import MODULE_ID, UnknownStepsError
from attnforge.compile.nvcc.labels import is_shared
from attnforge.compile.nvcc.ptx import Function, Module, UnknownPtxError, assembled, read_ptx, renumbered
from attnforge.compile.nvcc.steps import Step, Tool, outputs
from attnforge.model.graph import InParts, Unit
from attnforge.model.parts import part_labels

_CUDA_HEADER = "cuda_runtime.h"


class NotWholeError(Exception):
    """The parts are not what one run of cicc would have made."""


# --- the steps


def in_parts(steps: Sequence[Step], unit: Unit) -> tuple[Step, ...]:
    """Return the steps of a unit, with those of its parts before each cicc that then only puts them together.

    A cicc whose output follows from another architecture's has no parts. Raises UnknownStepsError if the steps have
    no form that is known.
    """
    if unit.parts is None:
        return tuple(steps)
    found: list[Step] = []
    for step in steps:
        if step.tool is not Tool.CICC or is_shared(unit, step.label):
            found.append(step)
            continue
        added = _steps_of_parts(step, steps, unit.parts)
        found += added
        needs = (*step.needs, *(one.label for one in added if one.tool is Tool.CICC))
        found.append(replace(step, needs=needs))
    return tuple(found)


def _steps_of_parts(cicc: Step, steps: Sequence[Step], parts: InParts) -> list[Step]:
    preprocess = next((one for one in steps if one.label in cicc.needs and one.tool is Tool.PREPROCESS), None)
    if preprocess is None or preprocess.writes != cicc.reads:
        raise UnknownStepsError(f"{cicc.label} reads what no preprocessor writes")
    count = len(parts.headers)
    labels = zip(part_labels(preprocess.label, count), part_labels(cicc.label, count), strict=True)
    found: list[Step] = []
    for (first, second), header in zip(labels, (parts.index, *parts.headers), strict=True):
        folder = f"{cicc.cwd}/{second.replace(' ', '-')}"
        found += [_preprocess(preprocess, first, header, folder), _cicc(cicc, second, first, folder)]
    return found


def _preprocess(step: Step, label: str, header: str, folder: str) -> Step:
    """Return the preprocessor's step for a part: its header comes right after CUDA's own.

    It writes no list of headers: what it reads is what the whole unit's step reads, and ``header``, which is ours.
    """
    (whole,) = step.writes
    output = f"{folder}/{PurePosixPath(whole).name}"
    words = [output if word == whole else word for word in step.argv if word not in ("-MD", "-MF", step.depfile)]
    at = next((at for at, pair in enumerate(pairwise(words)) if _includes_cuda(*pair)), None)
    if at is None:
        raise UnknownStepsError(f"{step.label} does not include {_CUDA_HEADER}")
    argv = (*words[: at + 2], "-include", header, *words[at + 2 :])
    return replace(step, label=label, argv=argv, writes=(output,), depfile="")


def _includes_cuda(option: str, value: str) -> bool:
    return option == "-include" and PurePosixPath(value).name == _CUDA_HEADER


def _cicc(step: Step, label: str, need: str, folder: str) -> Step:
    """Return cicc's step for a part: the same names, in a separate folder."""
    argv = [step.argv[0]]
    for before, word in pairwise(step.argv):
        path = os.path.normpath(os.path.join(step.cwd, word))  # noqa: PTH118 - Path would not normalize
        argv.append(path if before == MODULE_ID else word)

    def moved(paths: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"{folder}/{PurePosixPath(path).name}" for path in paths)

    return replace(
        step,
        label=label,
        argv=tuple(argv),
        reads=moved(step.reads),
        writes=moved(step.writes),
        needs=(need,),
        cwd=folder,
    )


# --- what they write


def joined_outputs(unit: Unit, steps: Mapping[str, Step], step: Step) -> dict[str, bytes]:
    """Return what a cicc would write, by path, from what its parts wrote.

    ``steps`` are all of the unit's, by label. NotWholeError if that is not certain; OSError for files that are lost.
    """
    parts = unit.parts
    if parts is None:
        raise NotWholeError("the unit has no parts")
    labels = part_labels(step.label, len(parts.headers))
    if not steps.keys() >= set(labels):
        raise NotWholeError(f"{step.label} has no parts")
    index = steps[labels[0]]
    texts = [_read(steps[label], "output") for label in labels]
    try:
        made = {"output": joined(*map(read_ptx, texts)), "stub": _read(index, "stub")}
    except UnknownPtxError as error:
        raise NotWholeError(str(error)) from error
    wanted = outputs(step)
    if {wanted[role] for role in made if role in wanted} != set(step.writes):
        raise NotWholeError(f"{step.label} writes other files")
    return {path: made[role] for role, path in wanted.items()}


def _read(step: Step, role: str) -> bytes:
    path = outputs(step).get(role)
    if path is None:
        raise NotWholeError(f"{step.label} writes no {role}")
    return Path(path).read_bytes()


def joined(index: Module, *parts: Module) -> bytes:
    """Return the PTX of all functions of the parts, in the order of the index. NotWholeError if that can't be."""
    functions = _functions(parts)
    order = [function.name for function in index.functions]
    if len(order) != len(functions) or set(order) != functions.keys():
        names = sorted(set(order) ^ functions.keys()) or order
        raise NotWholeError(f"{len(order)} functions in the index, {len(functions)} in the parts, one is {names[0]}")
    first = parts[0]
    if any((part.head, part.mark, part.tail) != (first.head, first.mark, first.tail) for part in parts[1:]):
        raise NotWholeError("the parts declare different things")
    return assembled(first, [functions[name] for name in order])


def _functions(parts: Sequence[Module]) -> Mapping[str, tuple[bytes, Function, int]]:
    """Return each function by its name, with the comment before it and its number; one of several parts once."""
    found: dict[str, tuple[bytes, Function, int]] = {}
    for part in parts:
        for number, (mark, function) in enumerate(zip(part.marks, part.functions, strict=True)):
            known = found.setdefault(function.name, (mark, function, number))
            if known[1] is not function and renumbered(known[1].text, known[2], number) != function.text:
                raise NotWholeError(f"{function.name} is not the same in two parts")
    return found
