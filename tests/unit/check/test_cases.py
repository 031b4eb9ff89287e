"""What is tried of a wheel follows from what it covers and from what upstream promises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from attnforge.check.cases import TOPICS, cases_for
from attnforge.check.subject import Subject, subject_of
from attnforge.knowledge.behaviour import Behaviour, behaviours, find_behaviour
from attnforge.model.check import Case
from attnforge.recipes.catalogue import recipes

FLASH_2: dict[str, Any] = {
    "takes": ["alibi", "causal", "deterministic", "dropout", "softcap", "window"],
    "kernels": ["flash_attn_func", "flash_attn_qkvpacked_func"],
    "main": "flash_attn_func",
    "layouts": ["NHD"],
    "varlen": True,
    "varlen_takes": ["alibi", "causal", "dropout", "softcap", "table", "window"],
    "cache": True,
    "cache_takes": ["alibi", "causal", "index", "lengths", "new_k", "softcap", "splits", "table", "window"],
}
FLASH_3 = {
    **FLASH_2,
    "takes": ["causal", "deterministic", "softcap", "window"],
    "varlen_takes": ["causal", "softcap", "window"],
    "cache_takes": ["causal", "index", "lengths", "new_k", "softcap", "splits", "table", "window"],
}
FLASH_4 = {**FLASH_3, "kernels": ["flash_attn_func"], "cache": False, "cache_takes": []}
SAGE: dict[str, Any] = {
    "takes": ["causal", "scale"],
    "kernels": ["sageattn", "sageattn_qk_int8_pv_fp8_cuda_sm90"],
    "main": "sageattn",
    "layouts": ["NHD", "HND"],
    "varlen": True,
    "varlen_takes": ["causal"],
    "cache": False,
    "cache_takes": [],
}
OPENED: dict[str, Any] = {
    "flash-attn": FLASH_2,
    "flash-attn-3": FLASH_3,
    "flash-attn-4": FLASH_4,
    "sageattention-1": SAGE,
    "sageattention-2": SAGE,
}


def subject(
    package: str = "flash-attn", *, quick: bool = False, only: tuple[str, ...] = (), **coverage: Any
) -> Subject:
    return subject_of(behaviours()[package], coverage or None, OPENED[package], quick, only)


def of(topic: str, cases: tuple[Case, ...]) -> list[Case]:
    return [case for case in cases if case.topic == topic]


@pytest.mark.parametrize("package", behaviours())
def test_names_tell_cases_apart_and_topics_come_one_after_another(package: str) -> None:
    cases = cases_for(subject(package))
    assert len({case.name for case in cases}) == len(cases)
    topics = [TOPICS.index(case.topic) for case in cases]
    assert topics == sorted(topics)
    assert (cases[0].call, cases[0].topic) == ("smoke", "smoke")


@pytest.mark.parametrize("package", behaviours())
def test_quick_takes_the_same_topics_but_long_sequences(package: str) -> None:
    whole, quick = cases_for(subject(package)), cases_for(subject(package, quick=True))
    assert {case.topic for case in whole} - {case.topic for case in quick} == {"long"}
    assert len(quick) < len(whole)


def test_only_takes_those_topics_and_the_smoke_test() -> None:
    assert {case.topic for case in cases_for(subject(only=("paged", "softcap")))} == {"smoke", "paged", "softcap"}


def test_a_wheel_that_says_nothing_is_tried_for_all_that_upstream_has() -> None:
    cases = cases_for(subject())
    assert {case.head_dim for case in of("dense", cases)} == set(behaviours()["flash-attn"].head_dims)
    assert {case.dtype for case in cases} == {"fp16", "bf16"}
    assert not any(case.left_out for case in cases)


def test_dense_cases_have_the_shapes_that_go_wrong() -> None:
    dense = of("dense", cases_for(subject(head_dims=[64], dtypes=["fp16"])))
    assert any(case.rows == 1 for case in dense)
    assert any(case.rows % 64 and case.columns % 64 for case in dense)
    assert any(case.causal and case.rows > case.columns for case in dense)
    assert {case.heads // case.kv_heads for case in dense} >= {1, 2, 8}
    lengths = {one for case in of("varlen", cases_for(subject())) for one in case.lengths}
    assert {0, 1} <= {rows for rows, _ in lengths} and 0 in {columns for _, columns in lengths}
    assert {case.head_dim for case in of("head-dim", cases_for(subject(head_dims=[64])))} == {56, 61}


# What coverage lists of a wheel for head dimension 64.
DROPPED = [f"forward-hdim{size}-bf16" for size in (32, 64, 96, 128, 192, 256)]
LEFT_OUT = ["alibi", "backward", "dropout", "local", "softcap", "split"]


@pytest.mark.parametrize("package", ["flash-attn", "flash-attn-3"])
def test_one_call_is_such_that_upstream_refuses_it(package: str) -> None:
    (one,) = of("errors", cases_for(subject(package)))
    assert one.heads % one.kv_heads
    assert "heads" in one.refused


def test_where_upstreams_message_is_not_known_no_call_has_to_be_refused() -> None:
    assert of("errors", cases_for(subject("sageattention-1"))) == []


def test_what_was_left_out_has_to_raise_and_nothing_else_has() -> None:
    cases = cases_for(subject(head_dims=[64], dtypes=["bf16"], left_out=LEFT_OUT, kernels_left_out=DROPPED))
    raising = {(case.topic, case.left_out) for case in cases if case.left_out}
    features = behaviours()["flash-attn"].features
    expected = {(topic, feature) for feature in LEFT_OUT for topic in features[feature]}
    dims = {("left-out", f"head dimension {size}") for size in (32, 96, 128, 192, 256)}
    assert raising == expected | dims | {("left-out", "fp16")}
    for case in cases:
        if case.topic in ("softcap", "alibi", "window"):
            assert case.left_out
        assert bool(case.words) == bool(case.left_out)
    softcap = of("softcap", cases)
    assert {case.call for case in softcap} == {"dense", "varlen", "cache"}
    assert all(case.words == (("softcap",), ("attnforge build",)) for case in softcap)


def test_head_dimensions_that_have_to_raise_are_those_of_kernels_that_were_left_out() -> None:
    dropped = ["forward-hdim64-bf16", "forward-hdim160-fp16", "split-hdim256-bf16-causal"]
    cases = cases_for(subject(head_dims=[64], dtypes=["fp16"], kernels_left_out=dropped))
    assert {case.left_out for case in of("left-out", cases)} == {"head dimension 160", "head dimension 256", "bf16"}


def test_a_feature_that_is_there_is_tried_and_not_expected_to_raise() -> None:
    cases = cases_for(subject(head_dims=[64], dtypes=["bf16"], left_out=["softcap"]))
    assert not any(case.left_out for case in of("window", cases) + of("paged", cases) + of("dropout", cases))
    assert not any(case.softcap for case in of("backward", cases))
    assert any(case.alibi for case in of("backward", cases))


def test_flash_attention_3_rounds_smaller_head_dimensions_up() -> None:
    dropped: dict[str, Any] = {"left_out": ["varlen", "split"], "kernels_left_out": DROPPED}
    cases = cases_for(subject("flash-attn-3", head_dims=[128], dtypes=["bf16"], **dropped))
    assert {32, 64, 96} <= {case.head_dim for case in of("head-dim", cases)}
    assert {case.head_dim for case in of("left-out", cases)} == {128, 192, 256}  # 128 in fp16
    assert cases[0].head_dim == 64
    assert all(case.left_out == "varlen" for case in of("varlen", cases) + of("cache", cases))
    assert all("does not support" in case.words[0][0] for case in of("varlen", cases))


def test_nothing_is_asked_of_a_call_that_it_does_not_take() -> None:
    opened: Any = {
        **FLASH_2,
        "cache_takes": ["lengths", "alibi"],
        "varlen_takes": ["causal"],
        "takes": ["causal", "softcap"],
    }
    cases = cases_for(subject_of(behaviours()["flash-attn"], None, opened))
    assert {case.topic for case in cases if case.call == "cache"} == {"cache"}
    assert {case.topic for case in cases if case.call == "varlen"} == {"varlen"}
    assert not any(case.alibi or case.window != (-1, -1) for case in cases)


def test_sageattention_is_tried_within_what_upstream_says() -> None:
    cases = cases_for(subject("sageattention-1"))
    both = (*cases, *cases_for(subject("sageattention-2")))
    assert not any(case.causal and case.rows != case.columns for case in both)
    assert {case.layout for case in of("layout", cases)} == {"HND"}
    assert {case.head_dim for case in of("varlen", cases)} == {64, 128}
    assert {case.kernel for case in of("kernel", cases)} == {"sageattn_qk_int8_pv_fp8_cuda_sm90"}
    assert not any(case.promised for case in of("kernel", cases) + of("compile", cases) + of("devices", cases))
    assert not {"backward", "dropout", "softcap", "cache"} & {case.topic for case in cases}
    # 2 pads what lies between its kernels' sizes, so no size is left out.
    later = cases_for(subject("sageattention-2", head_dims=[64, 128], dtypes=["fp16"]))
    assert {case.head_dim for case in of("head-dim", later)} == {56, 61, 120, 125}
    assert not any(case.left_out in ("head dimension 96",) for case in later)


# --- the data


def test_the_former_name_is_the_same_package() -> None:
    assert find_behaviour("flashattn-hopper", "3.0.0b1") is behaviours()["flash-attn-3"]
    assert find_behaviour("causal-conv1d", "1.7.0") is None


@pytest.mark.parametrize(("version", "table"), [("1.0.6", "1"), ("2.2.0", "2"), ("2.2.0+cu130.gd1a57a5", "2")])
def test_versions_behave_differently(version: str, table: str) -> None:
    assert find_behaviour("sageattention", version) is behaviours()[f"sageattention-{table}"]


@pytest.mark.parametrize("behaviour", behaviours().values(), ids=behaviours())
def test_behaviour_agrees_with_itself_and_with_recipes(behaviour: Behaviour) -> None:
    assert behaviour.interface in behaviour.modules
    assert behaviour.source
    assert {topic for topics in behaviour.features.values() for topic in topics} <= set(TOPICS)
    recipe = recipes().get(behaviour.package)
    if recipe is not None:
        assert set(recipe.features) <= set(behaviour.features) | UNTRIED.get(behaviour.package, set())
        assert set(recipe.modules) <= set(behaviour.modules) | {"flash_attn_3._C"}


# Features of a recipe whose absence no call can ask for.
UNTRIED: dict[str, set[str]] = {"flash-attn-3": {"hdimdiff64", "hdimdiff192", "packgqa", "cluster"}}


def all_cases() -> Iterator[Case]:
    for package in behaviours():
        yield from cases_for(subject(package))


def test_cases_say_all_to_the_program_that_runs_them() -> None:
    for case in all_cases():
        assert Case.model_validate(case.to_json()) == case


def test_what_sageattention_1_computes_wrong_is_known_of_each_case() -> None:
    """It counts keys past the end of a sequence, where no causal mask hides them."""
    for case in cases_for(subject("sageattention-1")):
        keys = [columns for _, columns in case.lengths] or [case.columns]
        wrong = not case.causal and any(count % 64 for count in keys)
        assert (case.fault == "sage1-keys-past-the-end") is wrong, case.name
    assert not any(case.fault for case in cases_for(subject("sageattention-2")))
