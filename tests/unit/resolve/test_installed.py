"""The PyTorch of an environment as the target of a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from attnforge.errors import AttnforgeError, HostError, RequestError
from attnforge.knowledge.torch import cxx_of, known_torch
from attnforge.model.host import Active, Host, Installed, Toolkit
from attnforge.model.plan import BuildPlan, Resolution, SourcePin
from attnforge.model.request import Request
from attnforge.recipes.catalogue import find_recipe
from attnforge.recipes.refusals import rebuild_command
from attnforge.resolve.installed import (
    asked_environment,
    check_installed,
    check_named,
    is_official,
    may_default_to_installed,
    pin_of,
    usable,
)
from attnforge.resolve.resolver import resolve, with_target

SOURCE = SourcePin(kind="sdist", name="flash_attn-2.8.3.tar.gz", sha256="a" * 64)
NVIDIA = ("2.6.0a0+ecf3bae40a.nv25.1", "2.6.0a0+ecf3bae40a.nv25.01")
NIGHTLY = ("2.12.0.dev20260101+cu130", "2.12.0.dev20260101+cu130")
FROM_SOURCE = ("2.12.0a0+git1234", "2.12.0a0+git1234")
CONDA_FORGE = ("2.7.1", "2.7.1")


def installed(torch: str = "2.11.0", calls_itself: str = "2.11.0+cu130", **changes: Any) -> Installed:
    values: dict[str, Any] = {
        "python": "/opt/venv/bin/python",
        "version": "3.12.1",
        "prefix": "/opt/venv",
        "named_by": "VIRTUAL_ENV",
        "cuda": "13.0",
        "git": "70d99e9",
        "folder": "/opt/venv/site",
        "digest": "d" * 64,
    }
    return Installed(**{**values, "torch": torch, "calls_itself": calls_itself, **changes})


@pytest.fixture
def against(make_host: Callable[..., Host]) -> Callable[..., Resolution]:
    """Resolve FlashAttention 2.8.3 for an H100 and an environment."""

    def make(found: Installed | None = None, cuda: str = "13.0", passed: Any = (), **request: Any) -> Resolution:
        toolkit = Toolkit(home="/cuda", cuda=cuda, nvcc=f"{cuda}.88")
        active = Active(installed=found, passed=passed)
        asked = Request(**{"package": "flash-attn", "gpus": ("H100",), **request})
        host = make_host(toolkits=(toolkit,))
        return resolve(asked, find_recipe("flash-attn"), "2.8.3", SOURCE, host, active=active)

    return make


def reason(resolution: Resolution, subject: str) -> str:
    (found,) = (one for one in resolution.decisions if one.subject == subject)
    return f"{found.choice}: {found.reason}"


def warnings(resolution: Resolution) -> list[str]:
    return [warning.message for warning in resolution.warnings if warning.subject == "torch"]


# --- the plan


def test_an_official_release_is_planned_as_one_of_the_index_and_pinned(against: Callable[..., Resolution]) -> None:
    resolution = against(installed())
    plan = resolution.plan
    assert (plan.target.python, plan.target.torch, plan.target.cuda) == ("3.12", "2.11.0", "13.0")
    assert (plan.label, plan.requires_torch) == ("cu130torch2.11.sm90", "==2.11.*")
    assert reason(resolution, "torch") == "2.11.0: PyTorch 2.11.0+cu130 of /opt/venv (VIRTUAL_ENV)"
    assert plan.installed is not None
    assert (plan.installed.build, plan.installed.git, plan.installed.digest) == ("2.11.0+cu130", "70d99e9", "")
    assert warnings(resolution) == []


@pytest.mark.parametrize(
    ("versions", "label"),
    [
        (NVIDIA, "cu130torch2.6.0a0.ecf3bae40a.nv25.1.unofficial.sm90"),
        (NIGHTLY, "cu130torch2.12.0.dev20260101.cu130.unofficial.sm90"),
        (FROM_SOURCE, "cu130torch2.12.0a0.git1234.unofficial.sm90"),
        (CONDA_FORGE, "cu130torch2.7.1.unofficial.sm90"),
    ],
)
def test_a_build_that_is_no_release_is_required_exactly_and_says_so(
    against: Callable[..., Resolution], versions: tuple[str, str], label: str
) -> None:
    resolution = against(installed(*versions))
    plan = resolution.plan
    assert plan.requires_torch == f"=={versions[0]}"
    assert plan.label == label
    assert f"+{label}-cp312" in plan.wheel
    assert plan.installed is not None and plan.installed.digest == "d" * 64
    (warning,) = warnings(resolution)
    assert "no official release" in warning and plan.requires_torch in warning
    assert "no official release" in reason(resolution, "requires")


def test_the_digest_is_that_of_the_build_and_not_of_the_place(against: Callable[..., Resolution]) -> None:
    here = against(installed(*FROM_SOURCE)).plan
    elsewhere = installed(*FROM_SOURCE, prefix="/other", python="/other/bin/python", folder="/x", named_by="--env")
    assert against(elsewhere).plan.digest == here.digest
    for changes in ({"digest": "e" * 64}, {"git": "1"}, {"cxx11_abi": False}):
        assert against(installed(*FROM_SOURCE, **changes)).plan.digest != here.digest


def test_two_installers_files_of_one_release_are_one_plan(against: Callable[..., Resolution]) -> None:
    assert against(installed(digest="e" * 64)).plan.digest == against(installed()).plan.digest


def test_a_plan_without_an_environment_says_nothing_of_one(against: Callable[..., Resolution]) -> None:
    document = against().plan.to_json()
    assert "installed" not in document
    assert BuildPlan.model_validate(document) == against().plan
    document = against(installed()).plan.to_json()
    assert BuildPlan.model_validate(document) == against(installed()).plan
    assert "/opt/venv" not in str(document)


def test_the_document_of_a_plan_says_which_environment_it_is(against: Callable[..., Resolution]) -> None:
    assert against(installed()).public()["environment"] == "PyTorch 2.11.0+cu130 of /opt/venv (VIRTUAL_ENV)"
    assert against().public()["environment"] == ""


def test_environments_that_were_passed_over_are_rejected_candidates(against: Callable[..., Resolution]) -> None:
    resolution = against(passed=(("/opt/venv (VIRTUAL_ENV)", "it has no PyTorch"),))
    (torch,) = (one for one in resolution.decisions if one.subject == "torch")
    assert (torch.rejected[0].choice, torch.rejected[0].reason) == ("/opt/venv (VIRTUAL_ENV)", "it has no PyTorch")


def test_a_release_that_is_not_known_is_built_for_with_a_note(against: Callable[..., Resolution]) -> None:
    resolution = against(installed("2.99.0", "2.99.0+cu130", cxx=20))
    assert resolution.plan.target.torch == "2.99.0"
    (warning,) = warnings(resolution)
    assert "not known" in warning
    assert known_torch("2.99.0+cu130") is None


def test_the_toolchain_is_for_the_cuda_of_that_pytorch(against: Callable[..., Resolution]) -> None:
    plan = against(installed("2.7.1", "2.7.1+cu126", cuda="12.6"), cuda="12.6").plan
    assert (plan.target.cuda, plan.toolchain.nvcc) == ("12.6", "12.6.88")
    assert plan.label == "cu126torch2.7.sm90"


def test_a_pytorch_that_a_release_does_not_take_is_refused_with_one_that_it_takes(
    make_host: Callable[..., Host],
) -> None:
    recipe = find_recipe("flash-attn-3")
    old = installed("2.2.0a0+git1", "2.2.0a0+git1", cuda="12.1")
    host = make_host(toolkits=(Toolkit(home="/cuda", cuda="12.1", nvcc="12.1.105"),))
    asked = Request(package="flash-attn-3", gpus=("H100",))
    with pytest.raises(RequestError) as caught:
        resolve(asked, recipe, "3.0.0b1", SOURCE, host, active=Active(installed=old))
    assert "--torch 2." in caught.value.hint


def test_a_universal_wheel_of_an_environment_has_its_one_pair(against: Callable[..., Resolution]) -> None:
    plan = against(installed(), universal=True).plan
    assert [(pair.torch, pair.python) for pair in plan.pairs] == [("2.11.0", "3.12")]
    assert plan.installed is None


def test_a_universal_wheel_has_no_module_for_a_build_that_is_no_release(against: Callable[..., Resolution]) -> None:
    with pytest.raises(RequestError, match="can't be one of a universal wheel's"):
        against(installed(*NIGHTLY), universal=True)


def test_the_command_that_builds_what_was_left_out_names_the_environment(against: Callable[..., Resolution]) -> None:
    plan = against(installed(*FROM_SOURCE), without=("softcap", "alibi")).plan
    assert " --torch installed " in rebuild_command(plan, "softcap")
    plan = against(installed(), without=("softcap", "alibi")).plan
    assert " --python 3.12 --torch 2.11.0 --cuda 13.0 " in rebuild_command(plan, "softcap")


# --- which request means it


@pytest.mark.parametrize(
    "named", [{"torch": "2.11.0"}, {"python": "3.12"}, {"cuda": "13.0"}, {"target": "hopper"}, {"universal": True}]
)
def test_a_request_that_says_what_it_is_for_does_not_mean_the_active_environment(named: dict[str, Any]) -> None:
    assert not may_default_to_installed(Request(package="flash-attn", **named))
    assert may_default_to_installed(Request(package="flash-attn", gpus=("H100",), profile="diffusion"))


def test_a_named_target_says_nothing_of_an_environment() -> None:
    for wish in ({"torch": "installed"}, {"env": "/opt/venv"}):
        filled = with_target(Request(package="flash-attn", target="hopper", **wish), "flash-attn")
        assert (filled.python, filled.cuda, filled.gpus) == ("", "", ("H100",))
        assert filled.torch == wish.get("torch", "")


def test_an_environment_and_a_version_are_two() -> None:
    check_named(Request(package="x", env="/opt/venv", torch="installed"))
    with pytest.raises(RequestError, match="name two PyTorch"):
        check_named(Request(package="x", env="/opt/venv", torch="2.11.0"))


# --- what it has to have


@pytest.mark.parametrize(
    ("changes", "kind", "why", "hint"),
    [
        ({"torch": "", "calls_itself": "", "cuda": ""}, RequestError, "it has no PyTorch", "--env PATH"),
        ({"cuda": "", "calls_itself": "2.11.0+cpu"}, RequestError, "built without CUDA", "PyTorch for CUDA"),
        ({"cuda": "", "rocm": "6.4"}, RequestError, "AMD GPUs (ROCm 6.4)", "PyTorch for CUDA"),
        ({"trouble": "ImportError: libcudnn"}, HostError, "libcudnn", "/opt/venv/bin/python -c 'import torch"),
        ({"has_headers": False}, HostError, "compiled against them", "python3.12-dev"),
        ({"torch": "nonsense!"}, RequestError, "", "--torch VERSION"),
    ],
)
def test_what_an_environment_lacks_is_said_with_what_helps(
    changes: dict[str, Any], kind: type[AttnforgeError], why: str, hint: str
) -> None:
    found = installed(**changes)
    with pytest.raises(AttnforgeError) as caught:
        check_installed(found)
    assert type(caught.value) is kind
    assert why in caught.value.why and hint in caught.value.hint
    assert "/opt/venv (VIRTUAL_ENV)" in caught.value.what


def test_an_environment_that_lacks_something_is_passed_over_where_none_is_named() -> None:
    seen = usable(Active(installed=installed(has_headers=False)))
    assert seen.installed is None
    assert seen.passed[0][0] == "/opt/venv (VIRTUAL_ENV)" and "no headers" in seen.passed[0][1]
    good = Active(installed=installed())
    assert usable(good) is good


def test_one_that_is_named_has_to_be_there() -> None:
    with pytest.raises(RequestError, match="no environment with a PyTorch for CUDA is active"):
        asked_environment(Active(), Request(package="x", torch="installed"))
    broken = installed(trouble="ImportError: x")
    with pytest.raises(HostError):
        asked_environment(Active(unfit=broken), Request(package="x", torch="installed"))


@pytest.mark.parametrize("named", [{"python": "3.11"}, {"cuda": "12.8"}])
def test_what_else_is_asked_for_has_to_agree(named: dict[str, str]) -> None:
    with pytest.raises(RequestError, match="was asked for"):
        asked_environment(Active(installed=installed()), Request(package="x", env="/opt/venv", **named))


@pytest.mark.parametrize("named", [{"python": "3.12"}, {"python": "3.12.7"}, {"cuda": "13.0"}, {"cuda": "cu130"}])
def test_what_agrees_may_be_said(named: dict[str, str]) -> None:
    found = installed()
    assert asked_environment(Active(installed=found), Request(package="x", torch="installed", **named)) is found


# --- what is an official release


@pytest.mark.parametrize(
    ("torch", "calls_itself", "cuda"),
    [("2.11.0", "2.11.0+cu130", "13.0"), ("2.7.1+cu128", "2.7.1+cu128", "12.8"), ("2.14.0", "2.14.0+cu132", "13.2")],
)
def test_releases_say_their_cuda(torch: str, calls_itself: str, cuda: str) -> None:
    found = installed(torch, calls_itself, cuda=cuda)
    assert is_official(found)
    assert pin_of(found).version == torch.partition("+")[0]


@pytest.mark.parametrize(
    ("torch", "calls_itself"),
    [
        NVIDIA,
        NIGHTLY,
        FROM_SOURCE,
        CONDA_FORGE,
        ("2.11.0", "2.11.0+cu126"),
        ("2.11.0", "2.12.0+cu130"),
        ("2.11.0.post1", "2.11.0.post1+cu130"),
        ("2.11.0rc1+cu130", "2.11.0rc1+cu130"),
        ("2.11.0+gitabc", "2.11.0+gitabc"),
        ("?", "?"),
    ],
)
def test_other_builds_are_no_releases(torch: str, calls_itself: str) -> None:
    assert not is_official(installed(torch, calls_itself))


def test_the_standard_of_a_version_that_is_not_known_is_that_of_the_one_before() -> None:
    assert cxx_of("2.13.0a0+git1") == cxx_of("2.12.0")
    assert cxx_of("2.14.0.dev20260801+cu130") == 17
    assert cxx_of("2.99.0") == cxx_of("2.14.0") == 20
    assert cxx_of("0.1") == 17
