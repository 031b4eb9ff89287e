"""Judges whether cicc writes the same PTX for two architectures, from what it wrote for both.

What is compared is all that cicc writes: the PTX for the later architecture, byte for byte, with what would be made of
the earlier one's in its place (compile.ptx). ptxas is given the same then, and makes the same of it. Functions may come
in another order: ptxas compiles each by itself, and its code stays the same.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations

from attnforge.compile.graph.passes.share import names_of
from attnforge.compile.nvcc.prefixes import Prefixes
from attnforge.compile.nvcc.ptx import Module, UnknownPtxError, derived, is_reordered, parts, read_ptx
from attnforge.compile.nvcc.steps import Step, outputs
from attnforge.compile.reuse.shared import files_read, left_out, written
from attnforge.compile.run.work import Work
from attnforge.files import file_sha256
from attnforge.model.plan import BuildPlan
from attnforge.model.sharing import Proof, ProvenUnit

Pair = tuple[str, str]
"""The architecture that cicc runs for, and the one whose PTX is to follow (``80``, ``90``)."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of a unit: ``proof`` where the PTX of a pair is the same, else ``why`` it is not."""

    units: tuple[str, ...]
    pair: Pair
    proof: Proof | None = None
    why: str = ""


@dataclass(slots=True)
class _Seen:
    """What the compilers wrote for a unit, by architecture (``sm_90``)."""

    ptx: dict[str, bytes] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)


class Prover:
    """Watches the steps of a build and judges each unit when all of its machine code is there."""

    def __init__(self, plan: BuildPlan, prefixes: Prefixes, command: str, tell: Callable[[Verdict], object]) -> None:
        """Judge the units of a plan; ``prefixes`` are those of its build."""
        self._plan = plan
        self._prefixes = prefixes
        self._command = command
        self._tell = tell
        self._seen: dict[int, _Seen] = {}
        self._lock = threading.Lock()

    def watch(self, work: Work, step: Step) -> None:
        """Take note of a step that has ended. Many threads may call it at once."""
        tool, _, code = step.label.partition(" ")
        if tool not in ("cicc", "ptxas") or not code:
            return
        with self._lock:
            seen = self._seen.setdefault(work.number, _Seen())
            if tool == "cicc":
                seen.ptx[code] = written(step)
            else:
                seen.code[code] = file_sha256(outputs(step)["output"])
            wanted = {step.label.partition(" ")[2] for step in work.steps.values() if step.label.startswith("ptxas ")}
            if seen.code.keys() == seen.ptx.keys() == wanted:
                del self._seen[work.number]
                self._judge(work, seen)

    def _judge(self, work: Work, seen: _Seen) -> None:
        for of, code in combinations(sorted(seen.ptx, key=_number), 2):
            self._tell(self._verdict(work, seen, (of.removeprefix("sm_"), code.removeprefix("sm_"))))

    def _verdict(self, work: Work, seen: _Seen, pair: Pair) -> Verdict:
        names = tuple(sorted(names_of(work.unit)))
        of, code = (f"sm_{digits}" for digits in pair)
        without = left_out(work.unit, code)
        try:
            one, other = read_ptx(seen.ptx[of]), read_ptx(seen.ptx[code])
            reordered = derived(one, pair[1], without) != seen.ptx[code]
            if reordered and not is_reordered(one, other, work.unit.module_id, without):
                return Verdict(names, pair, why=difference(one, other, work.unit.module_id, without))
        except UnknownPtxError as error:
            return Verdict(names, pair, why=f"its PTX is of another form: {error}")
        unit = ProvenUnit(
            units=names,
            versions=(self._plan.version,),
            features=self._plan.selection.features,
            functions=len(other.functions),
            left_out=len(one.functions) - len(other.functions),
            ptx=hashlib.sha256(seen.ptx[code]).hexdigest(),
            code=seen.code[code],
            reordered=reordered,
        )
        proof = Proof(
            package=self._plan.package,
            nvcc=self._plan.toolchain.nvcc,
            of=pair[0],
            code=pair[1],
            commands=(self._command,),
            units=(unit,),
            files=tuple(sorted({digest for digest, _ in files_read(work, self._prefixes)})),
            parts=tuple(sorted(parts(one, work.unit.module_id, without))),
        )
        return Verdict(names, pair, proof)


def _number(code: str) -> int:
    return int(re.sub(r"\D", "", code))


def difference(one: Module, other: Module, module_id: str, without: Callable[[str], bool]) -> str:
    """Return how many parts of two PTX differ, and the name of the first, for people."""
    theirs, mine = parts(other, module_id), parts(one, module_id, without)
    differing = sorted({mine[digest] for digest in mine.keys() - theirs.keys()})
    differing += sorted({theirs[digest] for digest in theirs.keys() - mine.keys()} - set(differing))
    if not differing:
        return "some parts are there more often"
    return f"{len(differing)} of {len(theirs)} parts differ, the first is {differing[0]}"
