"""What upstream says that its functions do, for each package that can be checked on a GPU."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Literal

from packaging.specifiers import SpecifierSet
from packaging.version import Version
from pydantic import Field

from attnforge.model.base import Value

Rule = Literal["flash2", "flash3", "quantized"]

# The name that FlashAttention 3 had in 2024.
_FORMER = {"flashattn-hopper": "flash-attn-3"}


class Fault(Value):
    """Something that upstream's own release computes wrong: a wheel that does is as upstream made it, and not broken.

    It holds for calls without a causal mask whose number of keys is no multiple of ``keys_multiple``. Results are then
    at least as near as ``least_cosine``, their cosine similarity with what is right; what is further off is no longer
    this fault.
    """

    id: str
    keys_multiple: int
    least_cosine: float
    message: str
    hint: str
    source: str

    def concerns(self, causal: bool, keys: tuple[int, ...]) -> bool:
        """Say whether a call with sequences of so many keys is one of those."""
        return not causal and any(count % self.keys_multiple for count in keys)


class Advice(Value):
    """What else fixes a failure of this package's wheels."""

    hint: str
    link: str


class Behaviour(Value):
    """What a package's functions take and promise, in some of its ``versions``.

    ``rule`` says how far results may be off (ongpu/reference.py). ``modules`` are imported, ``interface`` has the
    functions, with at least the ``parameters`` of each. ``head_dims`` and ``dtypes`` are those of all its kernels.
    ``smaller_head_dims``: sizes below a kernel's are served by it; ``odd_head_dims``: those that are no multiple of 8
    too. ``rounds_up``: a head dimension that was left out is computed by the next larger kernel, and raises only
    where there is none. ``features`` are the names of what can be left out, with the topics of the cases that then
    have to raise. The rest says whether upstream promises it: causal masks with unequal lengths, empty sequences,
    gradients, the same gradients twice, one graph for torch.compile, calls for another device than the current one.
    ``heads_refused`` is in upstream's message for a call whose heads of k and v do not divide those of q; empty where
    it does not look, or where its message is not known. ``varlen_head_dims`` where these are fewer. ``refusals``: one
    of these is in upstream's own message for what was left out; empty where a wheel of ours says it itself.
    ``faults`` are what its release computes wrong, ``advice`` is by the codes of findings (check/verdicts.py).
    """

    package: str
    versions: str = ""
    rule: Rule
    modules: tuple[str, ...]
    interface: str
    head_dims: tuple[int, ...]
    dtypes: tuple[str, ...]
    smaller_head_dims: bool
    odd_head_dims: bool
    rounds_up: bool
    unequal_causal: bool
    empty_sequences: bool
    gradients: bool
    deterministic_gradients: bool
    whole_graph: bool
    any_device: bool
    varlen_head_dims: tuple[int, ...] = ()
    refusals: tuple[str, ...] = ()
    heads_refused: str = ""
    features: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    parameters: dict[str, tuple[str, ...]]
    faults: tuple[Fault, ...] = ()
    advice: dict[str, Advice] = Field(default_factory=dict)
    source: str


@cache
def behaviours() -> dict[str, Behaviour]:
    """Return all that is known, by the names of the tables."""
    text = resources.files("attnforge.knowledge").joinpath("behaviour.toml").read_text(encoding="utf-8")
    return {name: Behaviour.model_validate(table) for name, table in tomllib.loads(text).items()}


def find_behaviour(package: str, version: str) -> Behaviour | None:
    """Return what is known of a version of a distribution (canonical name); None where it can't be checked by
    numbers."""
    named, public = _FORMER.get(package, package), Version(version).public
    for behaviour in behaviours().values():
        if behaviour.package == named and SpecifierSet(behaviour.versions, prereleases=True).contains(public):
            return behaviour
    return None
