"""The passes of a build, and the proofs that it uses."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

from attnforge.compile.graph.pipeline import passes_for
from attnforge.model.graph import Pass
from attnforge.model.plan import BuildPlan
from attnforge.model.recipe import Recipe
from attnforge.model.sharing import Proof
from attnforge.recipes.catalogue import find_adapter
from attnforge.recipes.proofs import find_proofs
from attnforge.resolve.predictions import cost_key
from attnforge.workflow.inputs import Inputs, named_folders


def proofs_of(plan: BuildPlan) -> tuple[Proof, ...]:
    """Return the proofs that a plan names; none where it was made with others."""
    wanted = {one.proof for one in plan.shared}
    return tuple(proof for proof in find_proofs(plan.package, plan.toolchain.nvcc) if proof.digest in wanted)


def passes_of(
    plan: BuildPlan,
    recipe: Recipe,
    inputs: Inputs,
    generated: Path,
    answers: Collection[str],
    left: Collection[str] = (),
) -> tuple[Pass, ...]:
    """Return what a build does to upstream's graphs; files of ours go into ``generated``."""
    own = find_adapter(recipe).passes(plan, recipe, str(generated), answers)
    prefixes = named_folders(inputs, generated)
    return passes_for(plan, recipe, own, partial(cost_key, plan), prefixes, str(generated), left)
