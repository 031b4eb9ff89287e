"""From --universal to the pairs, the label and the file name of a plan."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.utils import parse_wheel_filename
from packaging.version import Version

from attnforge.cli.show import plan_lines
from attnforge.errors import RequestError
from attnforge.knowledge.advisories import Advisory
from attnforge.knowledge.torch import torch_releases
from attnforge.model.host import Host, Toolkit
from attnforge.model.minors import specifier
from attnforge.model.plan import BuildPlan, Resolution
from attnforge.model.request import Request
from attnforge.model.universal import Pair, numbers, sorted_pairs
from attnforge.recipes.catalogue import find_recipe
from attnforge.resolve import advice
from attnforge.resolve.decisions import Notes
from attnforge.resolve.form import asked_pythons
from attnforge.resolve.pairs import pairs_for, with_pairs
from attnforge.resolve.predictions import cost_key, expected_units, priors
from attnforge.resolve.releases import check_release
from attnforge.resolve.resolver import with_target
from attnforge.resolve.spans import described, span
from attnforge.resolve.versions import expand_pythons, expand_torches

Make = Callable[..., Resolution]
RECIPE = find_recipe("flash-attn")
RELEASE = RECIPE.release("2.8.3")


def grid(torches: list[str], pythons: list[str]) -> tuple[Pair, ...]:
    return sorted_pairs(Pair(torch=f"{torch}.0", python=python) for torch, python in product(torches, pythons))


@pytest.fixture
def universal(make_resolution: Make) -> Make:
    return lambda **changes: make_resolution(**{"universal": True, "torch": "2.11,2.12", "python": "3.12", **changes})


# --- lists and ranges


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("2.11", ["2.11.0"]),
        ("2.11.0", ["2.11.0"]),
        ("2.13,2.11, 2.12", ["2.11.0", "2.12.1", "2.13.0"]),
        ("2.9-2.12", ["2.9.1", "2.10.0", "2.11.0", "2.12.1"]),
        ("2.11 - 2.12", ["2.11.0", "2.12.1"]),
        ("2.11-2.11", ["2.11.0"]),
        ("2.12.0,2.14", ["2.12.0", "2.14.1"]),
        ("2.11-2.12;2.12,2.12.1", ["2.11.0", "2.12.1"]),
    ],
)
def test_lists_and_ranges_of_pytorch(text: str, versions: list[str]) -> None:
    assert [release.version for release in expand_torches(text)] == versions


@pytest.mark.parametrize(
    ("text", "pythons"),
    [
        ("3.12", ("3.12",)),
        ("3.12.7", ("3.12",)),
        ("3.9-3.11", ("3.9", "3.10", "3.11")),
        ("3.13,3.10,3.10", ("3.10", "3.13")),
        ("3.10-3.11,3.13", ("3.10", "3.11", "3.13")),
    ],
)
def test_lists_and_ranges_of_python(text: str, pythons: tuple[str, ...]) -> None:
    assert expand_pythons(text) == pythons


@pytest.mark.parametrize(
    ("torches", "what", "hint"),
    [
        ("2.12.0,2.12", "2.12.0 and 2.12.1, two patches of PyTorch 2.12", "name one"),
        ("2.12.0,2.11-2.13", "two patches of PyTorch 2.12", "name one"),
        ("2.13-2.11", "the range 2.13-2.11 is empty", "2.11-2.13"),
        ("2.11,2.13-2.12", "the range 2.13-2.12 is empty", "2.12-2.13"),
        ("2.11.0-2.13", "a range of PyTorch can't end at 2.11.0", "write 2.11 there"),
        ("2.11-2.99", "PyTorch 2.99 is not known", "--torch"),
        ("2.11-", "is not a PyTorch version", "--torch"),
        ("2.11,banana", "'banana' is not a PyTorch version", "--torch"),
        (",", "names no version", "--torch"),
    ],
)
def test_a_list_of_pytorch_that_can_not_be_is_refused(universal: Make, torches: str, what: str, hint: str) -> None:
    with pytest.raises(RequestError) as caught:
        universal(torch=torches)
    assert what in caught.value.what
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("pythons", "what", "hint"),
    [
        ("3.99", "no PyTorch that is known is built for Python 3.99", "--python 3.15"),
        ("3.10-3.99", "no PyTorch that is known is built for Python 3.99", "--python 3.15"),
        ("3.10,snake", "no PyTorch that is known is built for Python snake", "--python 3"),
        ("3.13-3.12", "the range 3.13-3.12 is empty", "3.12-3.13"),
        ("3.9-3.12", "none of PyTorch 2.11.0, 2.12.1 has a build for Python 3.9", "--torch 2.8.0"),
        ("3.9", "PyTorch 2.11.0 has no build for Python 3.9", "--python 3.10"),
    ],
)
def test_a_list_of_python_that_can_not_be_is_refused(universal: Make, pythons: str, what: str, hint: str) -> None:
    with pytest.raises(RequestError) as caught:
        universal(python=pythons)
    assert what in caught.value.what
    assert hint in caught.value.hint


@given(st.lists(st.sampled_from([release.version for release in torch_releases()]), min_size=1, max_size=8))
def test_whatever_is_named_is_there_once_and_in_order(versions: list[str]) -> None:
    patches = {version.rpartition(".")[0]: version for version in versions}
    found = [release.version for release in expand_torches(",".join(patches.values()))]
    assert found == sorted(patches.values(), key=numbers)


@pytest.mark.parametrize("changes", [{"torch": "2.11,2.12"}, {"torch": "2.11-2.12"}, {"python": "3.11,3.12"}])
def test_several_without_universal_are_refused_with_the_option(make_resolution: Make, changes: dict[str, str]) -> None:
    with pytest.raises(RequestError, match="names several") as caught:
        make_resolution(**changes)
    assert "--universal" in caught.value.hint
    with pytest.raises(RequestError, match="no PyTorch that is known|names several"):
        asked_pythons(Request(package="x", **{"python": "3.11-3.99", **changes}))


def test_the_pythons_that_a_request_names() -> None:
    assert asked_pythons(Request(package="x")) == ()
    assert asked_pythons(Request(package="x", python="3.16")) == ("3.16",)
    assert asked_pythons(Request(package="x", python="3.10-3.12", universal=True)) == ("3.10", "3.11", "3.12")


# --- pairs


def test_a_universal_plan_has_its_pairs_and_the_first_is_the_target(universal: Make) -> None:
    plan = universal(torch="2.12,2.11", python="3.13,3.10").plan
    assert [(pair.torch, pair.python) for pair in plan.pairs] == [
        ("2.11.0", "3.10"),
        ("2.11.0", "3.13"),
        ("2.12.1", "3.10"),
        ("2.12.1", "3.13"),
    ]
    assert (plan.target.torch, plan.target.python, plan.target.cuda) == ("2.11.0", "3.10", "13.0")
    assert plan.requires_torch == ">=2.11,<2.13"
    assert plan == BuildPlan.model_validate(json.loads(json.dumps(plan.to_json())))


def test_a_pair_without_a_pytorch_is_left_out_with_a_reason(universal: Make) -> None:
    resolution = universal(torch="2.13,2.15", python="3.10-3.12")
    assert [pair.slug for pair in resolution.plan.pairs] == [
        "torch2.13-py3.10",
        "torch2.13-py3.11",
        "torch2.13-py3.12",
        "torch2.15-py3.11",
        "torch2.15-py3.12",
    ]
    (decision,) = (one for one in resolution.decisions if one.subject == "pairs")
    assert [rejected.choice for rejected in decision.rejected] == ["PyTorch 2.15, Python 3.10"]
    assert "2.15.0 has no build for Python 3.10" in decision.rejected[0].reason
    assert any("2.15.0 has no build for Python 3.10" in warning.message for warning in resolution.warnings)
    assert re.search(r"\.5pairs[0-9a-f]{8}\.", resolution.plan.label)


def test_other_pairs_of_the_same_spans_and_number_have_another_label(universal: Make) -> None:
    plan = universal(torch="2.11-2.13", python="3.10-3.12").plan
    recipe = find_recipe("flash-attn")
    release = recipe.release("2.8.3")

    def without(*keys: tuple[str, str]) -> str:
        return with_pairs(plan, [pair for pair in plan.pairs if pair.key not in keys], recipe, release).wheel

    one, other = without(("2.12", "3.11")), without(("2.12", "3.10"))
    assert one != other and ".8pairs" in one and ".8pairs" in other
    assert one == without(("2.12", "3.11"))


def test_a_pytorch_that_ends_up_in_no_pair_is_refused(universal: Make) -> None:
    with pytest.raises(RequestError, match=r"PyTorch 2\.15\.0 has no build for Python 3\.10") as caught:
        universal(torch="2.13,2.15", python="3.10")
    assert "--python 3.11" in caught.value.hint


def test_what_is_not_said_is_what_any_other_build_has(make_resolution: Make, make_host: Callable[..., Host]) -> None:
    for host in (make_host(), make_host(torch="2.12.0+cu130", python="3.14.0"), make_host(python="3.20.0")):
        single, universal = make_resolution(host=host).plan, make_resolution(host=host, universal=True).plan
        assert universal.target == single.target
        assert [(pair.torch, pair.python) for pair in universal.pairs] == [(single.target.torch, single.target.python)]
        assert universal.requires_torch == single.requires_torch


def test_the_python_that_is_not_said_is_one_that_all_have(
    make_resolution: Make, make_host: Callable[..., Host]
) -> None:
    toolkits = (Toolkit(home="/cuda", cuda="13.2", nvcc="13.2.86"),)
    host = make_host(python="3.10.1", toolkits=toolkits)
    plan = make_resolution(host=host, universal=True, torch="2.13,2.15").plan
    assert [pair.python for pair in plan.pairs] == ["3.13", "3.13"]


def test_pairs_for_a_cuda_that_is_settled() -> None:
    notes = Notes()
    found = pairs_for("2.14", "3.11-3.12", "13.0", notes)
    assert found == (Pair(torch="2.14.1", python="3.11"), Pair(torch="2.14.1", python="3.12"))
    assert {decision.subject for decision in notes.decisions} == {"torch", "python", "pairs"}
    with pytest.raises(RequestError, match=r"PyTorch 2\.15\.0 has no build with CUDA 13\.0") as caught:
        pairs_for("2.14,2.15", "3.12", "13.0", Notes())
    assert "separate wheel for --torch 2.15.0" in caught.value.hint


# --- one CUDA


@pytest.mark.parametrize(
    ("torches", "asked", "toolkits", "cuda"),
    [
        ("2.11,2.12", "", (), "13.0"),
        ("2.9,2.12", "", (), "13.0"),
        ("2.12,2.15", "", (), "13.2"),
        ("2.9,2.10", "", ("12.8",), "12.8"),
        ("2.9,2.10", "", (), "12.8"),
        ("2.8,2.12", "", (), "12.6"),
        ("2.8,2.9", "", ("12.6", "12.8"), "12.8"),
        ("2.9,2.12", "", ("12.6", "12.8"), "13.0"),
        ("2.8,2.12", "", ("12.6", "12.8"), "12.6"),
        ("2.11,2.12", "12", ("12.6",), "12.6"),
        ("2.11,2.12", "cu130", (), "13.0"),
        ("2.12,2.13", "13.2", (), "13.2"),
        ("2.12", "", (), "13.0"),
    ],
)
def test_all_pairs_have_one_cuda(
    universal: Make,
    make_host: Callable[..., Host],
    torches: str,
    asked: str,
    toolkits: tuple[str, ...],
    cuda: str,
) -> None:
    here = tuple(Toolkit(home=f"/{known}", cuda=known, nvcc=f"{known}.1") for known in toolkits)
    resolution = universal(torch=torches, cuda=asked, host=make_host(toolkits=here))
    assert resolution.plan.target.cuda == cuda
    (decision,) = (one for one in resolution.decisions if one.subject == "cuda")
    assert cuda not in [rejected.choice for rejected in decision.rejected]
    assert all(rejected.reason for rejected in decision.rejected)


@pytest.mark.parametrize(
    ("torches", "cuda", "what", "hint"),
    [
        ("2.10,2.15", "", "no CUDA together", "build separate wheels: --torch 2.10.0 and --torch 2.15.0"),
        ("2.11,2.12,2.15", "", "no CUDA together", "--torch 2.11.0,2.12.1 and --torch 2.15.0"),
        ("2.4,2.7", "", "no CUDA together", "--torch 2.4.1 and --torch 2.7.1, or install a CUDA toolkit"),
        ("2.14,2.15", "13.0", "PyTorch 2.15.0 has no build with CUDA 13.0", "separate wheel for --torch 2.15.0"),
        ("2.8,2.12", "13", "PyTorch 2.8.0 has no build with CUDA 13.0", "--cuda 12.6 for all"),
    ],
)
def test_without_a_cuda_in_common_separate_wheels_are_advised(
    universal: Make, torches: str, cuda: str, what: str, hint: str
) -> None:
    with pytest.raises(RequestError) as caught:
        universal(torch=torches, cuda=cuda)
    assert what in caught.value.what
    assert hint in caught.value.hint
    assert caught.value.why


# --- what such a wheel makes no sense for


def test_a_pure_python_package_needs_none(make_resolution: Make) -> None:
    for changes in ({"universal": True}, {"torch": "2.11,2.12"}):
        with pytest.raises(RequestError, match="needs no universal wheel") as caught:
            make_resolution(package="sageattention", version="1.0.6", gpus=(), **changes)
        assert "serves every Python and PyTorch already" in caught.value.why


@pytest.mark.parametrize(
    ("torches", "commands"),
    [
        ("2.11-2.13", ["--torch 2.11.0"]),
        ("2.7,2.8,2.11,2.12", ["--torch 2.7.1", "--torch 2.8.0", "--torch 2.11.0"]),
        ("", ["attnforge build flash-attn-3 --gpu H100,"]),
    ],
)
def test_flashattention_3_is_told_what_does_as_well(make_resolution: Make, torches: str, commands: list[str]) -> None:
    with pytest.raises(RequestError, match="needs no universal wheel") as caught:
        make_resolution(package="flash-attn-3", version="3.0.0b1", universal=True, torch=torches)
    assert caught.value.hint.count("attnforge build flash-attn-3 --gpu H100") == len(commands)
    assert all(command in caught.value.hint for command in commands)
    assert caught.value.hint.endswith("without --universal")


def test_a_named_target_fills_in_what_is_not_said(make_host: Callable[..., Host], make_resolution: Make) -> None:
    request = with_target(Request(package="flash-attn", target="reference", torch="2.7,2.8", universal=True), "x")
    host = make_host(toolkits=(Toolkit(home="/cuda", cuda="12.8", nvcc="12.8.93"),))
    plan = make_resolution(host=host, **request.model_dump(exclude={"package"}), version="2.7.2.post1").plan
    assert [pair.slug for pair in plan.pairs] == ["torch2.7-py3.11", "torch2.8-py3.11"]
    assert plan.target.cuda == "12.8"
    assert (plan.label, plan.wheel) == ("", "flash_attn-2.7.2.post1-py3-none-linux_x86_64.whl")


# --- every PyTorch of the pairs is looked at


def test_an_advisory_on_any_pytorch_of_the_pairs_counts(
    universal: Make, make_resolution: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = Advisory(id="bad", severity="error", torch=">=2.12,<2.13", message="m", hint="h", link="l")
    monkeypatch.setattr(advice, "advisories", lambda: (bad,))
    assert make_resolution(torch="2.11").plan
    with pytest.raises(RequestError, match="can't be built"):
        universal()
    seen = bad.model_copy(update={"file": "setup.py", "pattern": "."})
    monkeypatch.setattr(advice, "advisories", lambda: (seen,))
    with pytest.raises(RequestError, match="can't be built"):
        advice.check_source(universal().plan, lambda _: "text")
    monkeypatch.setattr(advice, "advisories", lambda: (bad.model_copy(update={"severity": "warning", "torch": ">=2"}),))
    assert [warning.subject for warning in universal().warnings] == ["bad"]


def test_a_release_that_needs_another_pytorch_is_refused_for_any_of_the_pairs() -> None:
    assert RELEASE is not None
    older = RELEASE.model_copy(update={"torch": "<2.12"})
    check_release(RECIPE, older, "13.0", ("2.10.0", "2.11.0"))
    with pytest.raises(RequestError, match=r"needs PyTorch <2\.12, the target has 2\.12\.1"):
        check_release(RECIPE, older, "13.0", ("2.11.0", "2.12.1"))


# --- labels, names, requirements


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"torch": "2.11-2.13", "python": "3.10-3.13"}, "cu130torch2.11to2.13.py3.10to3.13.sm90"),
        ({"torch": "2.9,2.11-2.13", "python": "3.10,3.12"}, "cu130torch2.9and2.11to2.13.py3.10and3.12.sm90"),
        ({"torch": "2.11", "python": "3.12"}, "cu130torch2.11.py3.12.sm90"),
        ({"torch": "2.13,2.15", "python": "3.10-3.11"}, "cu132torch2.13and2.15.py3.10to3.11.3pairse1d6da44.sm90"),
        (
            {"torch": "2.11-2.12", "gpus": ("L40S", "H100"), "profile": "inference", "head_dims": (64, 128)},
            "cu130torch2.11to2.12.py3.12.sm80.sm90.inference.hd64.hd128",
        ),
        ({"label": "mine-1"}, "mine.1"),
    ],
)
def test_labels(universal: Make, changes: dict[str, Any], label: str) -> None:
    plan = universal(**changes).plan
    assert plan.label == label
    _, version, _, tags = parse_wheel_filename(plan.wheel)
    assert str(version) == f"2.8.3+{label}"
    assert {str(tag) for tag in tags} == {"py3-none-linux_x86_64"}


MINORS = st.sets(st.integers(0, 30).map(lambda minor: f"2.{minor}"), min_size=1, max_size=12)
PAIRS = st.sets(
    st.builds(Pair, torch=st.integers(0, 30).map("2.{}.0".format), python=st.integers(8, 20).map("3.{}".format)),
    min_size=1,
    max_size=12,
)
ON_A_PLAN = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_span(text: str) -> set[str]:
    found = set()
    for run in text.split("and"):
        first, _, last = run.partition("to")
        (major, low), (_, high) = numbers(first), numbers(last or first)
        found |= {f"{major}.{minor}" for minor in range(low, high + 1)}
    return found


@given(MINORS)
def test_a_span_says_just_the_minors(minors: set[str]) -> None:
    assert read_span(span(minors)) == minors


@given(MINORS)
def test_a_specifier_is_met_by_just_the_minors(minors: set[str]) -> None:
    met = SpecifierSet(specifier(minors))
    assert {f"2.{minor}" for minor in range(33) if met.contains(f"2.{minor}.1")} == minors
    assert not met.contains("3.0")


def test_specifiers() -> None:
    assert specifier(["2.11"]) == "==2.11.*"
    assert specifier(["2.11", "2.13", "2.12"]) == ">=2.11,<2.14"
    assert specifier(["2.13", "2.11"]) == ">=2.11,<2.14,!=2.12.*"
    assert specifier(["2.15", "3.1"]) == ">=2.15,<3.2,!=3.0.*"


@ON_A_PLAN
@given(pairs=PAIRS)
def test_every_label_is_a_normal_local_version_and_with_pairs_of_the_same_changes_nothing(
    make_plan: Callable[..., BuildPlan], pairs: set[Pair]
) -> None:
    for label in ("", "mine", "none"):
        plan = make_plan(universal=True, torch="2.11", python="3.12", profile="inference", label=label)
        changed = with_pairs(plan, tuple(pairs), RECIPE, RELEASE)
        assert str(Version(f"0+{changed.label or 'x'}").local) == (changed.label or "x")
        assert changed.pairs == sorted_pairs(pairs)
        assert (changed.target.torch, changed.target.python) == (changed.pairs[0].torch, changed.pairs[0].python)
        assert with_pairs(changed, changed.pairs, RECIPE, RELEASE) == changed
        assert with_pairs(changed, plan.pairs, RECIPE, RELEASE) == plan


def test_pairs_that_are_added_make_the_plan_that_has_them_from_the_start(universal: Make) -> None:
    small, large = universal(python="3.11").plan, universal(torch="2.10-2.12", python="3.10-3.13").plan
    assert with_pairs(small, large.pairs, RECIPE, RELEASE) == large
    mine = universal(label="mine").plan
    assert with_pairs(mine, large.pairs, RECIPE, RELEASE).label == "mine"
    assert with_pairs(mine, large.pairs, RECIPE, RELEASE).requires_torch == ">=2.10,<2.13"


def test_the_label_of_a_git_source_keeps_its_commit(universal: Make) -> None:
    plan = universal().plan
    source = plan.source.model_copy(update={"kind": "git", "commit": "b7d29fb3b79f0b78b1c369a52aaa6628dabfb0d7"})
    pinned = plan.model_copy(update={"source": source, "label": f"{plan.label}.gb7d29fb3"})
    changed = with_pairs(pinned, grid(["2.11", "2.13"], ["3.12"]), RECIPE, RELEASE)
    assert changed.label == "cu130torch2.11and2.13.py3.12.sm90.gb7d29fb3"
    assert changed.wheel.startswith(f"flash_attn-2.8.3+{changed.label}-py3-none-")


# --- what is told


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        (grid(["2.11"], ["3.12"]), "1 pair: PyTorch 2.11 x Python 3.12"),
        (
            grid(["2.11", "2.12", "2.13"], ["3.10", "3.11", "3.12", "3.13"]),
            "12 pairs: PyTorch 2.11, 2.12, 2.13 x Python 3.10 to 3.13",
        ),
        (grid(["2.9", "2.11"], ["3.10", "3.11", "3.13"]), "6 pairs: PyTorch 2.9, 2.11 x Python 3.10, 3.11, 3.13"),
        (
            (*grid(["2.12", "2.13"], ["3.10", "3.11", "3.12"]), *grid(["2.15"], ["3.11", "3.12"])),
            "8 pairs: PyTorch 2.12, 2.13 x Python 3.10 to 3.12; PyTorch 2.15 x Python 3.11, 3.12",
        ),
    ],
)
def test_pairs_are_told(pairs: tuple[Pair, ...], text: str) -> None:
    assert described(pairs) == text


def test_the_plan_shows_its_pairs(universal: Make) -> None:
    resolution = universal(python="3.10-3.12")
    lines = list(plan_lines(resolution, explain=True))
    assert "  target     CUDA 13.0, 6 pairs: PyTorch 2.11, 2.12 x Python 3.10 to 3.12" in lines
    assert "  requires: torch>=2.11,<2.13" in lines
    document = json.loads(json.dumps(resolution.public()))
    assert document["pairs"][0] == {"python": "3.10", "torch": "2.11.0", "host_compiler": ""}
    subjects = [decision["subject"] for decision in document["decisions"]]
    assert len(subjects) == len(set(subjects))
    assert {"torch", "python", "cuda", "pairs", "requires"} <= set(subjects)
    assert all(decision["reason"] for decision in document["decisions"])


def test_each_further_pair_takes_its_host_code(universal: Make, make_plan: Callable[..., BuildPlan]) -> None:
    def jobs(plan: BuildPlan) -> list[Any]:
        return list(expected_units(plan, RECIPE, priors(plan, RECIPE)))

    single, four = make_plan(profile="diffusion"), universal(profile="diffusion", python="3.12,3.13").plan
    host_code = priors(single, RECIPE)[cost_key(single, "dispatch")]
    assert jobs(four) == [*jobs(single), *[{"": host_code}] * 3]
