"""Compiles units for several architectures, to prove that some get the same PTX (``prover``)."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from attnforge.compile.nvcc.prefixes import Prefixes
from attnforge.files import write_whole
from attnforge.model.events import Observer, ignore
from attnforge.model.plan import BuildPlan
from attnforge.model.sharing import Proof, merged
from attnforge.recipes.proofs import file_name
from attnforge.workflow.buildfolder import working_in
from attnforge.workflow.compiling import compile_upstream
from attnforge.workflow.inputs import named_folders
from attnforge.workflow.job import Context, Job
from attnforge.workflow.machine import Machine
from attnforge.workflow.pipeline import ENVIRONMENT, REQUIREMENTS, SOURCE, TOOLCHAIN
from attnforge.workflow.planning import Planned
from attnforge.workflow.prover import Prover, Verdict
from attnforge.workflow.providing import inputs_of
from attnforge.workflow.results import opened_cache
from attnforge.workflow.stages import follow


def restricted(plan: BuildPlan, pattern: str) -> BuildPlan:
    """Return the plan with only those kernels whose names a regular expression matches from their beginning."""
    selection = plan.selection
    kept = tuple(name for name in selection.kept if re.match(pattern, name))
    dropped = (*selection.dropped, *(name for name in selection.kept if name not in kept))
    return plan.model_copy(update={"selection": selection.model_copy(update={"kept": kept, "dropped": dropped})})


def prove(
    machine: Machine,
    planned: Planned,
    units: str,
    command: str,
    tell: Callable[[Verdict], object],
    observe: Observer = ignore,
) -> None:
    """Compile a plan's units for each of its architectures and ``tell`` the verdict on each unit and pair.

    ``units`` is a regular expression over the names of kernels, or over file names where the recipe knows none;
    ``command`` is what made the proof, for people. Steps come from the cache where they are there, objects do not.
    Raises what a build does.
    """
    plan = restricted(planned.plan, units)
    folder = machine.folders.ensure().builds / f"proof-{plan.slug}"
    with working_in(folder, observe) as log:
        # Objects that are there would not be compiled, and nothing would be seen.
        shutil.rmtree(folder / "objects", ignore_errors=True)
        whole = Job.of(machine, planned, folder, folder, observe, log, time.monotonic())
        job = replace(whole, plan=plan, installed=None)
        inputs = inputs_of(follow((SOURCE, REQUIREMENTS, ENVIRONMENT, TOOLCHAIN), Context(job)))
        prover = Prover(plan, Prefixes(named_folders(inputs, job.generated)), command, tell)
        left = unwanted(inputs.source, units) if units and not plan.selection.kept else ()
        with opened_cache(machine, job.request, job.warn) as cache:
            compile_upstream(job, inputs, cache, left=left, watch=prover.watch)


def unwanted(source: Path, pattern: str) -> frozenset[str]:
    """Return the CUDA sources, of a package whose kernels have no names, that a regular expression does not match."""
    return frozenset(str(path) for path in source.rglob("*.cu") if not re.match(pattern, path.name))


def keep(proof: Proof, folder: Path) -> Path:
    """Add a proof to those that are in a folder of files, and return its file. OSError, ValueError for a bad file."""
    path = folder / file_name(proof)
    if path.exists():
        proof = merged(Proof.model_validate_json(path.read_text(encoding="utf-8")), proof)
    write_whole(path, proof.model_dump_json(by_alias=True, indent=1) + "\n")
    return path


def proven(verdicts: Sequence[Verdict]) -> int:
    """Return how many of the verdicts are proofs."""
    return sum(verdict.proof is not None for verdict in verdicts)
