"""Which pairs of PyTorch and Python an extension adds to a universal wheel."""

from __future__ import annotations

from collections.abc import Sequence

from attnforge.errors import RequestError
from attnforge.knowledge.torch import TorchRelease
from attnforge.model.host import Installed
from attnforge.model.plan import BuildPlan
from attnforge.model.request import Request
from attnforge.model.universal import Pair
from attnforge.resolve.decisions import Notes
from attnforge.resolve.installed import pair_of_installed, pin_of
from attnforge.resolve.pairs import pairs_for
from attnforge.resolve.versions import named_cuda


def held_torches(plan: BuildPlan) -> str:
    """Return the PyTorch versions of a wheel, as a request names them."""
    return ",".join(dict.fromkeys(pair.torch for pair in plan.pairs))


def new_pairs(plan: BuildPlan, request: Request, notes: Notes, read: Sequence[TorchRelease]) -> tuple[Pair, ...]:
    """Return the pairs that a request names and the wheel does not have. ``read`` are releases that were looked up.

    RequestError where there are none, or where a PyTorch is built with another CUDA than the wheel.
    """
    if not (request.torch or request.python):
        raise RequestError("nothing to add is named", hint="--torch 2.14, --python 3.13, or both")
    torches = request.torch or held_torches(plan)
    pythons = request.python or ",".join(dict.fromkeys(pair.python for pair in plan.pairs))
    held = {pair.key for pair in plan.pairs}
    named = named_cuda(torches, read)
    if named not in ("", plan.target.cuda):
        raise RequestError(
            f"--torch {torches} is built with CUDA {named}, and the wheel is for {plan.target.cuda}",
            hint="build a separate wheel for that CUDA: attnforge build --universal",
        )
    asked = pairs_for(torches, pythons, plan.target.cuda, notes, read)
    new = tuple(pair for pair in asked if pair.key not in held)
    if not new:
        raise RequestError(f"the wheel has {', '.join(map(str, asked))} already", hint="install it unchanged")
    return tuple(_as_held(pair, plan, notes) for pair in new)


def installed_pair(plan: BuildPlan, installed: Installed, notes: Notes) -> tuple[Pair, ...]:
    """Return the pair of an environment. RequestError where the wheel has it, or is for another CUDA."""
    pair = pair_of_installed(installed, pin_of(installed))
    if installed.cuda != plan.target.cuda:
        raise RequestError(
            f"{installed} is built with CUDA {installed.cuda}, and the wheel is for {plan.target.cuda}",
            hint="build a separate wheel for that CUDA: attnforge build --universal --torch installed",
        )
    if pair.key in {held.key for held in plan.pairs}:
        raise RequestError(f"the wheel has {pair} already", hint="install it unchanged")
    notes.decide("torch", pair.torch, str(installed))
    return (pair,)


def _as_held(pair: Pair, plan: BuildPlan, notes: Notes) -> Pair:
    """Return a pair with the wheel's patch of its PyTorch minor: a wheel has one of each minor."""
    patch = next((held.torch for held in plan.pairs if held.torch_minor == pair.torch_minor), pair.torch)
    if patch != pair.torch:
        told = (
            f"the module for {pair} is compiled with PyTorch {patch}, and not {pair.torch}, as others of the wheel are"
        )
        notes.warn("torch", f"{told}: modules load with each patch of a minor")
    return pair.model_copy(update={"torch": patch})
