from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.errors import RequestError
from attnforge.model.amounts import Amount, Cost
from attnforge.model.cost import Prediction
from attnforge.model.host import Host, Memory
from attnforge.model.kernels import JOINT, KernelName, kernel_name
from attnforge.model.plan import BuildPlan, Decision, Resolution, Selection
from attnforge.model.request import Request
from attnforge.model.target import Architecture
from attnforge.recipes.catalogue import find_recipe
from attnforge.resolve.estimate import memory_limit, wall_seconds
from attnforge.resolve.grouping import GROWTH, Kernels, choose, divide, divisions_of
from attnforge.resolve.predictions import cost_key, expected_units, feature_share, predict_steps, priors, units

RECIPE = find_recipe("flash-attn")
HOPPER = (Architecture(major=9, minor=0),)
MACROS = ("alibi", "dropout", "local", "softcap")
ALL = tuple(
    kernel_name(kind, head_dim, dtype, "causal" if causal else "")
    for kind in ("forward", "split", "backward")
    for head_dim in (32, 64, 96, 128, 192, 256)
    for dtype in ("fp16", "bf16")
    for causal in (False, True)
)

Make = Callable[..., Resolution]
MakeHost = Callable[..., Host]
selections = st.builds(
    Selection,
    features=st.sets(st.sampled_from(MACROS)).map(lambda names: tuple(sorted(names))),
    kept=st.sets(st.sampled_from(ALL), min_size=1, max_size=30).map(lambda names: tuple(sorted(names))),
)


def cost_of(kind: str) -> Cost:
    cost = RECIPE.cost(kind)
    assert cost is not None
    return cost


def sizes(resolution: Resolution) -> list[int]:
    return [len(group) for group in resolution.plan.groups]


def told(resolution: Resolution) -> Decision:
    return next(decision for decision in resolution.decisions if decision.subject == "groups")


def memory(gib: int, free: int = 0) -> Memory:
    return Memory(total_bytes=gib << 30, limit_bytes=gib << 30, available_bytes=(free or gib) << 30, limited_by="")


# --- names and figures


@pytest.mark.parametrize("name", ALL)
def test_names_of_kernels_are_read_as_they_are_written(name: str) -> None:
    assert kernel_name(*KernelName.parse(name)) == name


@pytest.mark.parametrize("name", ["", "forward", "forward-hdim64", "forward-hdimx-fp16", "hdim64-fp16"])
def test_what_is_no_name_of_kernels(name: str) -> None:
    with pytest.raises(ValueError, match="no name of kernels"):
        KernelName.parse(name)


def test_an_amount_is_shared_and_added() -> None:
    amount = Amount(shared=37, slim=14, full=92, head_dim=8)
    one, other = KernelName.parse("forward-hdim64-bf16"), KernelName.parse("forward-hdim128-bf16-causal")
    assert amount.of([one], 0.0) == amount.alone(0.0) == 51
    assert amount.of([one] * 4, 0.0) == 93
    assert amount.of([one], 1.0) == amount.alone(1.0) == 129
    assert amount.of([one, other], 0.5) == 37 + 2 * 53 + 8


def test_variants_and_head_dimensions_have_factors() -> None:
    amount = Amount(shared=10, slim=1, full=4, head_dim=1, variants={"causal": 0.5}, head_dims={"64": 2, "256": 0.5})
    plain, causal, large, other = map(
        KernelName.parse, ("split-hdim64-bf16", "split-hdim64-bf16-causal", "split-hdim256-bf16", "split-hdim96-bf16")
    )
    assert amount.of([plain], 1.0) == 2 * (10 + 4)
    assert amount.of([causal], 1.0) == 2 * (10 + 2)
    assert amount.of([causal], 0.5) == 2 * (10 + 1.5)
    assert amount.of([causal], 0.0) == amount.of([plain], 0.0) == 2 * (10 + 1)
    assert amount.of([plain, causal], 1.0) == 2 * (10 + 4 + 2)
    assert amount.of([large], 1.0) == 0.5 * (10 + 4)
    # What is shared goes by the largest, each unit by its own, and the second head dimension adds its part.
    assert amount.of([plain, large, other], 1.0) == 2 * 10 + 2 * 4 + 0.5 * 4 + 4 + 2
    assert amount.alone(1.0) == 14


@pytest.mark.parametrize(
    ("count", "label", "seconds", "peak"),
    [
        (1, "cicc sm_90", 51, 3.1e9),
        (4, "cicc sm_90", 94, 3.2e9),
        (1, "ptxas sm_90", 3.8, 0.12e9),
        (4, "ptxas sm_90", 17.3, 0.21e9),
        (4, "cudafe++", 5.5, 0.6e9),
        (4, "compile", 6.5, 0.4e9),
    ],
)
def test_the_figures_give_what_was_measured(count: int, label: str, seconds: float, peak: float) -> None:
    kernels = [kernel for kernel in ALL if kernel.startswith("forward-hdim64")][:count]
    found = predict_steps(cost_of("forward"), kernels, 0.0, HOPPER)[label]
    assert found.seconds == pytest.approx(seconds, rel=0.15)
    assert found.peak_bytes == pytest.approx(peak, rel=0.15)


def test_device_steps_are_there_for_each_architecture_and_host_steps_once() -> None:
    labels = predict_steps(cost_of("forward"), ALL[:1], 0.0, (*HOPPER, Architecture(major=8, minor=0)))
    assert set(labels) == {
        "preprocess",
        "cudafe++",
        "compile",
        "fatbinary",
        *(f"{tool} {code}" for tool in ("preprocess", "cicc", "ptxas") for code in ("sm_80", "sm_90")),
    }


def test_a_unit_alone_is_the_sum_of_its_steps() -> None:
    for kind in ("forward", "split", "backward"):
        # Of a head dimension that has no factors; that of bytes is one of all head dimensions.
        kernel = f"{kind}-hdim64-fp16"
        steps = predict_steps(cost_of(kind), [kernel], 1.0, HOPPER).values()
        assert sum(step.seconds for step in steps) == pytest.approx(cost_of(kind).alone(1.0))
        assert max(step.peak_bytes for step in steps) == pytest.approx(cost_of(kind).peak(1.0), rel=0.03)


# --- what may be chosen


def contiguous(kernels: Kernels, count: int) -> list[list[Kernels]]:
    """Every division of kernels in order into so many parts."""
    cuts = itertools.combinations(range(1, len(kernels)), count - 1)
    return [[kernels[a:b] for a, b in itertools.pairwise((0, *inner, len(kernels)))] for inner in cuts]


@given(st.lists(st.sampled_from(ALL[:24]), min_size=1, max_size=7, unique=True), st.integers(1, 7), st.floats(1, 2))
def test_the_longest_part_is_as_short_as_can_be(kernels: list[str], most: int, growth: float) -> None:
    def predict(unit: Kernels) -> Prediction:
        steps = predict_steps(cost_of("forward"), unit, 0.0, HOPPER).values()
        return Prediction(sum(step.seconds for step in steps), max(step.peak_bytes for step in steps))

    ordered = tuple(sorted(kernels, key=KernelName.parse))
    ceiling = growth * max(predict((kernel,)).peak_bytes for kernel in ordered)
    found = divide(kernels, predict, most, growth)
    for count in range(1, len(ordered) + 1):
        allowed = [
            max(predict(part).seconds for part in parts)
            for parts in contiguous(ordered, count)
            if all(len(p) == 1 or (len(p) <= most and predict(p).peak_bytes <= ceiling) for p in parts)
        ]
        assert (count in found) == bool(allowed)
        if allowed:
            assert max(predict(part).seconds for part in found[count]) == min(allowed)


@given(selections, st.integers(1, 64), st.sampled_from(GROWTH))
def test_groups_hold_every_kernel_once_within_the_limits(selection: Selection, slots: int, growth: float) -> None:
    chosen = choose(divisions_of(RECIPE, selection, growth), slots)
    compiled = [unit for division in chosen.values() for unit in division]
    assert sorted(kernel for unit in compiled for kernel in unit) == sorted(selection.kept)
    features = feature_share(RECIPE, selection)
    for unit in compiled:
        kinds = {KernelName.parse(kernel).kind for kernel in unit}
        assert len(kinds) == 1
        cost = cost_of(kinds.pop())
        assert len(unit) == 1 or len(unit) * cost.added(features) <= cost.merged_seconds
        peaks = [
            max(step.peak_bytes for step in predict_steps(cost, kernels, features, HOPPER).values())
            for kernels in (unit, *((kernel,) for kernel in selection.kept if kernel.startswith(cost.kind)))
        ]
        assert peaks[0] <= growth * max(peaks[1:])


@given(selections, st.integers(1, 64))
def test_merging_is_never_worse_than_not_merging(selection: Selection, slots: int) -> None:
    divisions = divisions_of(RECIPE, selection)
    apart, merged = divisions.seconds(divisions.apart), divisions.seconds(choose(divisions, slots))
    assert wall_seconds(merged, slots) <= wall_seconds(apart, slots)
    assert sum(merged) <= sum(apart) + 1e-6


@given(selections, st.randoms(use_true_random=False), st.sampled_from([1, 2, 4, 8]))
def test_the_order_of_kernels_does_not_matter(selection: Selection, random: object, slots: int) -> None:
    shuffled = list(selection.kept)
    getattr(random, "shuffle")(shuffled)  # noqa: B009
    other = selection.model_copy(update={"kept": tuple(shuffled)})
    assert choose(divisions_of(RECIPE, selection), slots) == choose(divisions_of(RECIPE, other), slots)


def test_what_adds_too_much_stays_apart() -> None:
    everything = Selection(features=MACROS, kept=ALL)
    for slots in (1, 8):
        chosen = choose(divisions_of(RECIPE, everything), slots)
        assert {len(unit) for unit in chosen["split"]} == {len(unit) for unit in chosen["backward"]} == {1}
        assert {len(unit) for unit in chosen["forward"]} == {2}


# --- in a plan


def test_two_head_dimensions_on_two_processors_are_a_group_each(make_resolution: Make, make_host: MakeHost) -> None:
    resolution = make_resolution(profile="diffusion", head_dims=(64, 128), host=make_host(cpus=2, memory=memory(24)))
    dims = [{KernelName.parse(kernel).head_dim for kernel in group} for group in resolution.plan.groups]
    assert dims == [{64}, {128}]
    assert sizes(resolution) == [4, 4]
    assert told(resolution).choice == "8 units merged into 2"
    assert "2 processors" in told(resolution).reason
    assert told(resolution).rejected[0].choice == "every unit on its own"


@pytest.mark.parametrize("word", ["none", "None", " none "])
def test_nothing_is_merged_where_that_is_asked(make_resolution: Make, word: str) -> None:
    resolution = make_resolution(profile="diffusion", groups=word)
    assert resolution.plan.groups == ()
    assert told(resolution).choice == "none"


@pytest.mark.parametrize("word", ["0", "-1", "many", "1.5", "²"])
def test_a_number_that_is_none_is_refused(make_resolution: Make, word: str) -> None:
    with pytest.raises(RequestError, match="--groups") as caught:
        make_resolution(groups=word)
    assert "--groups none" in caught.value.hint


def test_a_number_makes_the_same_plan_on_every_machine(make_resolution: Make, make_host: MakeHost) -> None:
    hosts = [make_host(cpus=cpus, memory=memory(gib)) for cpus, gib in ((1, 4), (2, 16), (96, 512))]
    plans = {make_resolution(profile="diffusion", groups="4", host=host).plan.digest for host in hosts}
    assert len(plans) == 1


@pytest.mark.parametrize(("one", "other"), [((4, 64), (7, 64)), ((8, 64), (15, 70)), ((2, 16), (3, 17))])
def test_machines_that_are_alike_agree(
    make_resolution: Make, make_host: MakeHost, one: tuple[int, int], other: tuple[int, int]
) -> None:
    plans = {
        make_resolution(profile="diffusion", host=make_host(cpus=cpus, memory=memory(gib))).plan.digest
        for cpus, gib in (one, other)
    }
    assert len(plans) == 1


def test_what_is_free_now_does_not_matter(make_resolution: Make, make_host: MakeHost) -> None:
    busy, idle = (make_host(memory=memory(64, free)) for free in (5, 60))
    assert make_resolution(host=busy).plan == make_resolution(host=idle).plan


def test_jobs_stand_for_the_processors_and_a_budget_for_the_memory(make_resolution: Make, make_host: MakeHost) -> None:
    large, small = make_host(cpus=64, memory=memory(512)), make_host(cpus=2, memory=memory(512))
    assert make_resolution(host=large, jobs=2).plan == make_resolution(host=small).plan
    tight = make_resolution(profile="diffusion", host=large, memory=12 << 30)
    assert len(units(tight.plan)) < len(units(make_resolution(profile="diffusion", host=large).plan))
    assert memory_limit(Request(package="x", memory=7), large) == 7


def test_many_processors_merge_less(make_resolution: Make, make_host: MakeHost) -> None:
    counts = [
        len(units(make_resolution(profile="diffusion", host=make_host(cpus=cpus, memory=memory(512))).plan))
        for cpus in (1, 8, 16, 64)
    ]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1] <= 24


def test_groups_fit_the_memory(make_resolution: Make, make_host: MakeHost) -> None:
    small = make_resolution(profile="diffusion", host=make_host(cpus=8, memory=memory(8)))
    assert small.plan.groups
    for steps in expected_units(small.plan, RECIPE, priors(small.plan, RECIPE)):
        assert max(step.peak_bytes for step in steps.values()) <= 7 << 30
    none = make_resolution(profile="diffusion", host=make_host(cpus=8, memory=memory(4)))
    assert none.plan.groups == ()
    assert "would not fit" in told(none).reason


def test_architectures_python_and_torch_do_not_change_the_groups(make_resolution: Make) -> None:
    one = make_resolution(profile="diffusion").plan
    others = ({"gpus": ("L40S", "H100")}, {"python": "3.11"}, {"torch": "2.12.1"})
    assert all(make_resolution(profile="diffusion", **changes).plan.groups == one.groups for changes in others)


def test_a_package_whose_kernels_are_not_known_has_no_groups(make_resolution: Make) -> None:
    assert make_resolution(package="some-extension", version="1.0", groups="8").plan.groups == ()


def test_merging_shortens_the_estimate(make_resolution: Make) -> None:
    merged, apart = make_resolution(profile="diffusion"), make_resolution(profile="diffusion", groups="none")
    assert merged.estimate.seconds < apart.estimate.seconds


# --- what is expected


def test_priors_have_the_group_and_each_of_its_units(make_plan: Callable[..., BuildPlan]) -> None:
    plan = make_plan(profile="diffusion", head_dims=(64,), groups="1")
    (names,) = plan.groups
    found = priors(plan, RECIPE)
    joint = cost_key(plan, JOINT.join(names))
    assert "forward-hdim64x4 slim" in joint
    for key in (joint, *(cost_key(plan, name) for name in names)):
        assert {f"{key} | {label}" for label in ("preprocess", "preprocess sm_90", "cicc sm_90", "ptxas sm_90")} <= set(
            found
        )
        assert found[key].seconds == pytest.approx(
            sum(step.seconds for label, step in found.items() if label.startswith(f"{key} | "))
        )
    assert len(units(plan)) == 1


def test_keys_of_groups_go_by_kinds_and_head_dimensions(make_plan: Callable[..., BuildPlan]) -> None:
    plan = make_plan(profile="diffusion")
    one = cost_key(plan, "forward-hdim64-bf16+forward-hdim64-fp16+forward-hdim128-fp16")
    other = cost_key(plan, "forward-hdim128-bf16-causal+forward-hdim64-fp16+forward-hdim64-bf16")
    assert one == other
    assert "forward-hdim64x2+forward-hdim128x1" in one


def test_this_machines_expectations_are_the_estimate(make_plan: Callable[..., BuildPlan]) -> None:
    plan = make_plan(profile="diffusion", gpus=("L40S", "H100"))
    found = priors(plan, RECIPE)
    twice = {key: Prediction(2 * one.seconds, one.peak_bytes) for key, one in found.items()}
    some, longer = (list(expected_units(plan, RECIPE, each)) for each in (found, twice))
    assert [{label: 2 * step.seconds for label, step in steps.items()} for steps in some] == [
        {label: step.seconds for label, step in steps.items()} for steps in longer
    ]
    # The unit of dispatch, too.
    assert len(some) == len(units(plan)) + 1
    assert all(f"cicc {code}" in steps for steps in some[:-1] for code in ("sm_80", "sm_90"))
