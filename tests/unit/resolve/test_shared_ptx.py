"""What a plan shares between architectures follows from proofs, and its estimate from what it shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from attnforge.model.cost import Prediction
from attnforge.model.host import Host
from attnforge.model.plan import Resolution, SourcePin
from attnforge.model.request import Request
from attnforge.model.sharing import Proof, ProvenUnit, merged
from attnforge.recipes.catalogue import find_recipe
from attnforge.resolve.predictions import expected_units, priors
from attnforge.resolve.resolver import resolve
from attnforge.schedule.unit import needs_of

FULL = ("alibi", "backward", "dropout", "local", "softcap", "split")
Make = Callable[..., Resolution]


def proof(*units: str, of: str = "80", code: str = "90", features: Sequence[str] = (), version: str = "2.8.3") -> Proof:
    proven = ProvenUnit(
        units=units, versions=(version,), features=tuple(features), functions=3, ptx="0" * 64, code="1" * 64
    )
    parts = (f"{int(of):032x}", f"{int(code):032x}")
    return Proof(
        package="flash-attn",
        nvcc="13.0.88",
        of=of,
        code=code,
        commands=("by hand",),
        units=(proven,),
        files=("0" * 32,),
        parts=tuple(sorted(parts)),
    )


SLIM_64 = tuple(f"forward-hdim64-{dtype}{causal}" for dtype in ("fp16", "bf16") for causal in ("", "-causal"))


@pytest.fixture
def make(make_host: Callable[..., Host]) -> Make:
    def resolved(proofs: Sequence[Proof], **changes: Any) -> Resolution:
        asked = {"gpus": ("L40S", "H100"), "profile": "diffusion", "head_dims": (64,), **changes}
        request = Request(package="flash-attn", **asked)
        source = SourcePin(kind="sdist", name="flash_attn-2.8.3.tar.gz", sha256="a" * 64)
        recipe = find_recipe("flash-attn")
        return resolve(request, recipe, "2.8.3", source, make_host(), proofs=lambda nvcc: proofs)

    return resolved


def decision(resolution: Resolution) -> str:
    return next((one.choice for one in resolution.decisions if one.subject == "shared PTX"), "")


def test_what_is_proven_is_shared_and_the_reason_names_the_compiler(make: Make) -> None:
    resolution = make([proof(*SLIM_64)])
    (shared,) = resolution.plan.shared
    assert (shared.of, shared.code, set(shared.units)) == ("80", "90", set(SLIM_64))
    assert decision(resolution) == "sm_90 from compute_80 in 4 of 4 units"
    assert resolution.public()["shared"][0]["proof"] == proof(*SLIM_64).digest


def test_units_that_are_not_proven_are_named(make: Make) -> None:
    resolution = make([proof(*SLIM_64[:1])])
    found = next(one for one in resolution.decisions if one.subject == "shared PTX")
    assert found.choice == "sm_90 from compute_80 in 1 of 4 units"
    assert all(unit in found.rejected[0].choice for unit in SLIM_64[1:])
    assert "experiments/shared.py" in found.rejected[0].reason


@pytest.mark.parametrize(
    ("proven", "changes"),
    [
        (proof(*SLIM_64), {"no_share_ptx": True}),
        (proof(*SLIM_64, version="2.8.2"), {}),
        (proof(*SLIM_64), {"profile": "inference"}),
        (proof("forward-hdim32-fp16"), {}),
        (proof(*SLIM_64, of="80", code="120"), {}),
    ],
    ids=["the user says no", "another version", "more features", "other units", "other architectures"],
)
def test_nothing_else_is_shared(make: Make, proven: Proof, changes: dict[str, Any]) -> None:
    resolution = make([proven], **changes)
    assert resolution.plan.shared == ()
    assert decision(resolution) == "none"


def test_a_proof_with_more_features_holds_for_fewer(make: Make) -> None:
    assert make([proof(*SLIM_64, features=FULL)], without=("alibi",)).plan.shared


def test_features_with_kernels_of_their_own_change_no_other_kernels(make: Make) -> None:
    # Backward and split-KV are kept here; the proof is of forward kernels without any optional feature.
    slim = ("alibi", "softcap", "local", "dropout")
    (shared,) = make([proof(*SLIM_64)], profile="full", without=slim).plan.shared
    assert shared.units == tuple(SLIM_64)


def test_for_one_architecture_there_is_nothing_to_decide(make: Make) -> None:
    resolution = make([proof(*SLIM_64)], gpus=("H100",))
    assert resolution.plan.shared == ()
    assert decision(resolution) == ""


def test_code_that_follows_from_another_gives_no_ptx_itself(make: Make) -> None:
    proofs = [proof(*SLIM_64, of=of, code=code) for of, code in (("80", "90"), ("90", "100"), ("100", "120"))]
    resolution = make(proofs, gpus=("L40S", "H100", "B200", "RTX 5090"))
    assert [(one.of, one.code) for one in resolution.plan.shared] == [("80", "90"), ("100", "120")]


def test_the_digest_tells_whether_ptx_is_shared(make: Make) -> None:
    proofs = [proof(*SLIM_64)]
    assert make(proofs).plan.digest != make(proofs, no_share_ptx=True).plan.digest


def test_the_estimate_has_one_cicc_and_two_ptxas(make: Make) -> None:
    proofs, recipe = [proof(*SLIM_64)], find_recipe("flash-attn")
    apart, shared = (make(proofs, no_share_ptx=off) for off in (True, False))
    units = [one for one in expected_units(shared.plan, recipe, priors(shared.plan, recipe)) if "cudafe++" in one]
    labels = [{label for label in unit if label.startswith(("cicc", "ptxas"))} for unit in units]
    assert labels
    assert all(found == {"cicc sm_80", "ptxas sm_80", "ptxas sm_90"} for found in labels)
    assert shared.estimate.seconds < 0.75 * apart.estimate.seconds


def test_ptxas_waits_for_the_cicc_that_serves_it() -> None:
    labels = dict.fromkeys(("cicc sm_80", "ptxas sm_80", "ptxas sm_90"), Prediction(1, 1))
    assert needs_of("ptxas sm_90", labels) == ("cicc sm_80",)
    assert needs_of("ptxas sm_80", labels) == ("cicc sm_80",)


def test_proofs_of_one_compiler_are_joined() -> None:
    one, other = proof("a"), proof("b", features=FULL)
    again = proof("a", version="2.8.3.post2")
    joined = merged(merged(one, other), again)
    assert [(unit.units, unit.versions) for unit in joined.units] == [
        (("a",), ("2.8.3", "2.8.3.post2")),
        (("b",), ("2.8.3",)),
    ]
    assert joined.proves("a", "2.8.3.post2", ())
    assert not joined.proves("b", "2.8.3.post2", ())
    assert merged(joined, one) == joined
    with pytest.raises(ValueError, match="120"):
        merged(one, proof("a", code="120"))
