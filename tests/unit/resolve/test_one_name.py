"""One file name, one content: what does not change the code does not change the plan, so it gives the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attnforge.knowledge.gpus import all_gpus, on_arm_alone
from attnforge.model.plan import BuildPlan, Resolution
from attnforge.package.provenance import documents
from attnforge.recipes.catalogue import find_recipe
from attnforge.recipes.refusals import rebuild_command

Make = Callable[..., Resolution]
quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def contents(plan: BuildPlan) -> dict[str, bytes]:
    """What of a wheel comes of its plan: its documents, and a text that is compiled into it."""
    text = rebuild_command(plan, "softcap").encode() if plan.package == "flash-attn" else b""
    return {"name": plan.wheel.encode(), "digest": plan.digest.encode(), "text": text, **documents(plan, "x")}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # F10
        ({"gpus": ("A100",)}, {"gpus": ("A30",)}),
        ({"gpus": ("A100",)}, {"gpus": ("L40S",)}),  # FlashAttention 2 runs sm_80 code on both
        ({"gpus": ("H100",)}, {"gpus": ("H200",)}),
        ({"gpus": ("H100",)}, {"gpus": ("9.0",)}),
        ({"gpus": ("A100", "A30")}, {"gpus": ("A30",)}),
        (
            {"package": "it", "version": "1.0", "gpus": ("RTX 4090",)},
            {"package": "it", "version": "1.0", "gpus": ("L4",)},
        ),
        # F28
        ({"gpus": ("L40S", "H100")}, {"gpus": ("H100", "L40S")}),
        ({"head_dims": (128, 64)}, {"head_dims": (64, 128)}),
        ({"head_dims": (128, 64, 64)}, {"head_dims": (64, 128)}),
        ({"dtypes": ("bf16", "fp16")}, {"dtypes": ("fp16", "bf16")}),
        ({"without": ("softcap", "alibi")}, {"without": ("alibi", "softcap", "alibi")}),
        # All by name is all, and a profile that leaves nothing out is none.
        ({"dtypes": ("bf16", "fp16")}, {}),
        ({"label": "Mine-1"}, {"label": "mine.1"}),
        (
            {"universal": True, "torch": "2.12,2.11", "python": "3.12,3.11"},
            {"universal": True, "torch": "2.11-2.12", "python": "3.11-3.12"},
        ),
    ],
)
def test_the_same_code_is_the_same_plan(make_resolution: Make, one: dict[str, Any], other: dict[str, Any]) -> None:
    a, b = make_resolution(**one).plan, make_resolution(**other).plan
    assert contents(a) == contents(b)


@quick
@given(data=st.data())
def test_whatever_the_order_and_the_names(make_resolution: Make, data: st.DataObject) -> None:
    served = [
        gpu for gpu in all_gpus() if gpu.capability.dotted in ("8.0", "8.6", "8.9", "9.0") and not on_arm_alone(gpu)
    ]
    chosen = data.draw(st.lists(st.sampled_from(served), min_size=1, max_size=4))
    swapped = [
        data.draw(st.sampled_from([gpu for gpu in served if gpu.capability == one.capability])) for one in chosen
    ]
    dims = data.draw(st.lists(st.sampled_from((32, 64, 96, 128, 192, 256)), max_size=4))
    without = data.draw(st.lists(st.sampled_from(("alibi", "softcap", "local", "dropout")), max_size=3))
    a = make_resolution(gpus=tuple(gpu.name for gpu in chosen), head_dims=tuple(dims), without=tuple(without)).plan
    b = make_resolution(
        gpus=tuple(gpu.name for gpu in data.draw(st.permutations(swapped))),
        head_dims=tuple(data.draw(st.permutations(dims))),
        without=tuple(data.draw(st.permutations(without))),
    ).plan
    assert contents(a) == contents(b)


@quick
@given(data=st.data())
def test_another_selection_is_another_name(make_resolution: Make, data: st.DataObject) -> None:
    def draw() -> BuildPlan:
        choice: dict[str, Any] = {
            "gpus": data.draw(st.sampled_from((("A100",), ("H100",), ("A100", "H100")))),
            "profile": data.draw(st.sampled_from(("full", "inference", "diffusion"))),
            "head_dims": tuple(data.draw(st.lists(st.sampled_from((64, 128, 256)), max_size=2))),
            "dtypes": tuple(data.draw(st.lists(st.sampled_from(("fp16", "bf16")), max_size=2))),
            "without": tuple(data.draw(st.lists(st.sampled_from(("alibi", "softcap")), max_size=2))),
        }
        return make_resolution(groups="none", **choice).plan

    a, b = draw(), draw()
    assert (a.wheel == b.wheel) == (a == b)


def test_who_asked_for_which_gpu_is_still_said(make_resolution: Make) -> None:
    resolution = make_resolution(gpus=("H100", "A30"))
    assert [gpu["name"] for gpu in resolution.public()["target"]["gpus"]] == ["H100", "A30"]
    assert "A30" not in json.dumps(resolution.plan.to_json())


def test_a_plan_that_names_gpus_can_still_be_read(make_resolution: Make) -> None:
    plan = make_resolution().plan
    document = plan.to_json()
    document["target"]["gpus"] = [{"name": "H100", "capability": {"major": 9, "minor": 0, "suffix": ""}}]
    assert BuildPlan.model_validate(document) == plan


def test_a_profile_that_leaves_nothing_out_is_the_whole(make_resolution: Make) -> None:
    recipe = find_recipe("flash-attn")
    fewer = recipe.model_copy(update={"features": {}})
    from attnforge.model.request import Request
    from attnforge.resolve.decisions import Notes
    from attnforge.resolve.selection import choose_selection

    request = Request(package="flash-attn", profile="diffusion")
    assert choose_selection(request, fewer, fewer.release("2.8.3"), Notes())[0] == "full"
