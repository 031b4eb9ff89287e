"""Which units are compiled in parts follows from how many slots there are, and the estimate from the parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from attnforge.model.cost import Prediction
from attnforge.model.host import Host, Memory
from attnforge.model.parts import is_part
from attnforge.model.plan import BuildPlan, Decision, Resolution, SourcePin
from attnforge.model.request import Request
from attnforge.recipes.catalogue import find_recipe
from attnforge.resolve.predictions import expected_units, priors
from attnforge.resolve.resolver import resolve
from attnforge.schedule.unit import chain_of, length_of, needs_of, unit_of

RECIPE = find_recipe("flash-attn")
Make = Callable[..., Resolution]
GIB = 1 << 30


@pytest.fixture
def make(make_host: Callable[..., Host]) -> Make:
    """Resolve a whole build of one head dimension and dtype for a host with many processors and much memory."""
    memory = Memory(total_bytes=500 * GIB, limit_bytes=500 * GIB, available_bytes=500 * GIB, limited_by="")

    def resolved(cpus: int, **changes: Any) -> Resolution:
        asked = {"gpus": ("H100",), "head_dims": (128,), "dtypes": ("bf16",), **changes}
        source = SourcePin(kind="sdist", name="flash_attn-2.8.3.tar.gz", sha256="a" * 64)
        host = make_host(cpus=cpus, memory=memory)
        return resolve(Request(package="flash-attn", **asked), RECIPE, "2.8.3", source, host)

    return resolved


def told(resolution: Resolution) -> Decision:
    return next(one for one in resolution.decisions if one.subject == "parts")


def steps_of(plan: BuildPlan) -> list[dict[str, Prediction]]:
    return list(expected_units(plan, RECIPE, priors(plan, RECIPE)))


def test_on_few_slots_units_are_compiled_at_once(make: Make) -> None:
    for cpus in (1, 2):
        resolution = make(cpus)
        assert resolution.plan.parts == ()
        assert told(resolution).choice == "none"
        assert "no unit takes longer" in told(resolution).reason


def test_on_many_slots_the_longest_are_compiled_in_parts_and_the_build_is_shorter(make: Make) -> None:
    resolution, at_once = make(32), make(32, no_parts=True)
    assert {one.unit for one in resolution.plan.parts} >= {"split-hdim128-bf16", "split-hdim128-bf16-causal"}
    assert resolution.estimate.seconds < 0.75 * at_once.estimate.seconds
    decision = told(resolution)
    assert "split-hdim128-bf16" in decision.choice or "more" in decision.choice
    assert decision.rejected[0].choice == "the kernels of each unit at once"


def test_a_unit_has_no_more_parts_than_it_needs(make: Make) -> None:
    parts = {one.unit: len(one.parts) for one in make(64, head_dims=(), dtypes=()).plan.parts}
    assert parts["split-hdim32-fp16"] == 2
    assert parts["split-hdim64-fp16"] == 4


def test_the_user_may_say_no(make: Make) -> None:
    resolution = make(32, no_parts=True)
    assert resolution.plan.parts == ()
    assert "--no-parts" in told(resolution).reason


def test_kernels_are_divided_only_by_features_that_are_there(make: Make) -> None:
    for one in make(64, without=("softcap",)).plan.parts:
        assert not any("softcap" in part for part in one.parts)


def test_a_build_that_would_not_be_shorter_stays_as_it_is(make: Make) -> None:
    resolution = make(8, memory=9 * 10**9)
    assert resolution.plan.parts == ()


def test_a_plan_without_parts_is_what_it_was_before_there_were_any(make: Make) -> None:
    assert "parts" not in make(2).public()
    parted = make(32)
    assert parted.public()["parts"][0].keys() == {"unit", "parts"}
    assert parted.plan.digest != make(32, no_parts=True).plan.digest
    assert BuildPlan.model_validate(parted.plan.to_json()) == parted.plan


def test_the_number_of_compiles_at_once_may_be_told(make: Make) -> None:
    assert make(2, groups="32").plan.parts == make(32).plan.parts


def test_steps_of_parts_stand_for_the_whole_and_do_its_work(make: Make) -> None:
    parted, at_once = (
        {next(iter(sorted(steps))): steps for steps in steps_of(make(32, no_parts=off, groups=groups).plan)}
        for off, groups in ((False, "32"), (True, "32"))
    )
    assert parted
    for units in (parted, at_once):
        for steps in units.values():
            for label in steps:
                assert set(needs_of(label, steps)) <= steps.keys()
    divided = [steps for steps in steps_of(make(32).plan) if any(map(is_part, steps))]
    for steps in divided:
        assert "cicc sm_90" not in steps
        ciccs = {label for label in steps if label.startswith("cicc ")}
        assert set(needs_of("ptxas sm_90", steps)) == ciccs
        for label in ciccs:
            assert needs_of(label, steps) == (label.replace("cicc", "preprocess"),)
        work = sum(step.seconds for step in steps.values())
        assert chain_of(steps) == length_of(steps) < work
        assert unit_of("u", steps).job.tail == length_of(steps)


def test_parts_of_two_architectures_wait_for_their_own(make: Make) -> None:
    for steps in steps_of(make(64, gpus=("L40S", "H100")).plan):
        if any(map(is_part, steps)):
            for code in ("sm_80", "sm_90"):
                assert {label.split(" ")[1] for label in needs_of(f"ptxas {code}", steps)} == {code}
