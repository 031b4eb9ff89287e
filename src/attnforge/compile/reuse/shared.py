"""Takes the PTX for one architecture from another's, if it is proven that both are the same.

A build looks up every file of upstream, CUDA and PyTorch that the preprocessor read, and every function and declaration
in the PTX that cicc wrote. If one of them is in no proof, cicc runs. Headers of the system do not count: they know
nothing of the GPU, and what they change shows in the PTX.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from attnforge.compile.nvcc.prefixes import Prefixes
from attnforge.compile.nvcc.ptx import UnknownPtxError, derived, parts, read_ptx
from attnforge.compile.nvcc.steps import Step, Tool, outputs
from attnforge.compile.reuse.making import Making
from attnforge.compile.reuse.recall import dependencies
from attnforge.files import known_sha256
from attnforge.model.graph import Unit
from attnforge.model.sharing import PART_DIGITS, Proof

_GENERATED = "generated"
_SHOWN = 60


class UnprovenError(Exception):
    """What a unit is made of is not proven."""


class Sharing:
    """The proofs that a build may use. Immutable."""

    def __init__(self, proofs: Iterable[Proof] = ()) -> None:
        """Use these proofs; they are for the build's nvcc."""
        self._proofs: Mapping[tuple[str, str], Proof] = {(f"sm_{one.code}", f"sm_{one.of}"): one for one in proofs}
        self._files = {pair: frozenset(proof.files) for pair, proof in self._proofs.items()}
        self._parts = {pair: frozenset(proof.parts) for pair, proof in self._proofs.items()}

    def ptx(self, work: Making, step: Step, prefixes: Prefixes) -> bytes:
        """Return what a step of cicc would write. UnprovenError if that is not known; OSError for lost files."""
        pair = next((pair for pair in work.unit.shares if step.label == f"cicc {pair[0]}"), None)
        if pair is None or pair not in self._proofs:
            raise UnprovenError("no proof for these architectures")
        self._check_files(pair, files_read(work, prefixes))
        output = outputs(step)["output"]
        if any(path != output for other in work.steps.values() for path in other.reads if path in step.writes):
            raise UnprovenError("more than its PTX is read")
        without = left_out(work.unit, pair[0])
        try:
            module = read_ptx(written(work.steps[f"cicc {pair[1]}"]))
            self._check_parts(pair, parts(module, work.unit.module_id, without))
            return derived(module, pair[0].removeprefix("sm_"), without)
        except UnknownPtxError as error:
            raise UnprovenError(str(error)) from error

    def _check_files(self, pair: tuple[str, str], files: Iterable[tuple[str, str]]) -> None:
        other = next((name for digest, name in files if digest not in self._files[pair]), None)
        if other is not None:
            raise UnprovenError(f"{other} differs from the one in the proof")

    def _check_parts(self, pair: tuple[str, str], found: Mapping[str, str]) -> None:
        unknown = [name for digest, name in found.items() if digest not in self._parts[pair]]
        if unknown:
            raise UnprovenError(f"{len(unknown)} parts of the PTX are not in the proof, one is {unknown[0][:_SHOWN]}")


def files_read(work: Making, prefixes: Prefixes) -> list[tuple[str, str]]:
    """Return the digest and the stable name of each file that a unit was made of, without the system's and ours."""
    depfiles = [Path(step.depfile) for step in work.steps.values() if step.depfile and Path(step.depfile).exists()]
    named = {prefixes.name(path): path for path in dependencies(depfiles, work.unit.cwd)}
    wanted = sorted(name for name in named if not name.startswith(("/", f"{_GENERATED}/")))
    return [(known_sha256(named[name])[:PART_DIGITS], name) for name in wanted]


def left_out(unit: Unit, code: str) -> Callable[[str], bool]:
    """Return what says of a function, by its mangled name, that a unit's code for ``sm_90`` does without it."""
    patterns = [re.compile(pattern) for other, pattern in unit.left_out if other == code]
    return lambda name: any(pattern.search(name) for pattern in patterns)


def written(step: Step) -> bytes:
    """Return the PTX that a step of cicc has written."""
    return Path(outputs(step)["output"]).read_bytes()


def ordered(steps: Sequence[Step], unit: Unit) -> tuple[Step, ...]:
    """Return the steps of a unit, with each cicc that may not have to run after the one that it follows from."""
    labels = {step.label for step in steps}
    after = {f"cicc {code}": f"cicc {of}" for code, of in unit.shares}
    return tuple(
        replace(step, needs=(*step.needs, after[step.label]))
        if step.tool is Tool.CICC and after.get(step.label) in labels
        else step
        for step in steps
    )
