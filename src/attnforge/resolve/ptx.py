"""Which units get their code for one architecture from the PTX of another: one run of cicc for both."""

from __future__ import annotations

from collections.abc import Sequence

from attnforge.model.plan import Selection
from attnforge.model.recipe import Recipe
from attnforge.model.release import compiled_for
from attnforge.model.request import Request
from attnforge.model.sharing import Proof, Shared
from attnforge.model.target import Architecture
from attnforge.resolve.decisions import Notes

_SUBJECT = "shared PTX"
_COMMAND = "python experiments/shared.py"
_SHOWN = 3


def choose_shared(
    request: Request,
    recipe: Recipe,
    version: str,
    selection: Selection,
    architectures: Sequence[Architecture],
    proofs: Sequence[Proof],
    notes: Notes,
) -> tuple[Shared, ...]:
    """Return what is shared: of each unit what a proof has for its version, with all of the features that are kept.

    ``proofs`` are those for the package and the build of nvcc. No architecture gets its code from two others, and none
    whose own code comes from another gives its PTX.
    """
    if len(architectures) < 2:
        return ()
    if request.no_share_ptx:
        notes.decide(_SUBJECT, "none", "--no-share-ptx: cicc runs for each architecture")
        return ()
    units = units_of(recipe, selection)
    there = {architecture.digits: architecture for architecture in architectures}
    shared: list[Shared] = []
    order = list(there)
    known = [proof for proof in proofs if {proof.of, proof.code} <= there.keys()]
    for proof in sorted(known, key=lambda proof: (order.index(proof.of), order.index(proof.code))):
        if _is_free(proof, shared):
            shared += _shared(proof, recipe, version, selection, units, there)
    for one, proof in ((one, proof) for one in shared for proof in proofs if proof.digest == one.proof):
        _decide(one, proof, units, notes)
    if not shared:
        notes.decide(_SUBJECT, "none", f"nothing is proven for these units and this nvcc ({_COMMAND} does that)")
    return tuple(shared)


def units_of(recipe: Recipe, selection: Selection) -> tuple[str, ...]:
    """Return the names of upstream's units as proofs have them, as far as the recipe knows these."""
    named = (name for cost in recipe.costs if "cicc" in cost.seconds for name in cost.units)
    return selection.kept or tuple(dict.fromkeys(named))


def _is_free(proof: Proof, shared: Sequence[Shared]) -> bool:
    taken = {one.code for one in shared}
    return proof.code not in taken | {one.of for one in shared} and proof.of not in taken


def _shared(
    proof: Proof,
    recipe: Recipe,
    version: str,
    selection: Selection,
    units: Sequence[str],
    there: dict[str, Architecture],
) -> list[Shared]:
    both = (there[proof.of], there[proof.code])
    # A feature with its own kernels changes no other kernels: split-KV and backward.
    features = tuple(name for name in selection.features if not recipe.features[name].kinds)
    proven = tuple(
        unit
        for unit in units
        if proof.proves(unit, version, features) and compiled_for(unit, both, recipe.unit_architectures) == both
    )
    return [Shared(of=proof.of, code=proof.code, units=proven, proof=proof.digest)] if proven else []


def _decide(one: Shared, proof: Proof, units: Sequence[str], notes: Notes) -> None:
    rest = [unit for unit in units if unit not in one.units]
    more = f" and {len(rest) - _SHOWN} more" if len(rest) > _SHOWN else ""
    told = f"in {', '.join(rest[:_SHOWN])}{more}"
    notes.decide(
        _SUBJECT,
        f"sm_{one.code} from compute_{one.of} in {len(one.units)} of {len(units)} units",
        f"proven with nvcc {proof.nvcc} that the PTX of both is the same; cicc runs once for both",
        [(told, f"not proven for this version and these features; {_COMMAND} does that")] if rest else (),
    )
