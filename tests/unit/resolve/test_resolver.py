from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.utils import parse_wheel_filename

from attnforge.errors import AttnforgeError, HostError, RequestError
from attnforge.knowledge.targets import profiles, targets
from attnforge.knowledge.torch import torch_releases
from attnforge.model.cost import Prediction
from attnforge.model.host import Host, HostCompiler, Memory, Toolkit
from attnforge.model.plan import BuildPlan, Resolution
from attnforge.model.request import Request
from attnforge.model.target import Architecture, Gpu
from attnforge.recipes.catalogue import find_recipe
from attnforge.resolve.estimate import FIXED_SECONDS, estimate, memory_budget, memory_limit
from attnforge.resolve.predictions import cost_key, expected_units, priors
from attnforge.resolve.resolver import with_target

Make = Callable[..., Resolution]
FEATURES = ("alibi", "backward", "dropout", "local", "softcap", "split")


@pytest.mark.parametrize(
    ("gpus", "codes"),
    [
        (("H100",), ["sm_90"]),
        (("H200",), ["sm_90"]),
        (("L40S",), ["sm_80"]),
        (("A100",), ["sm_80"]),
        (("8.6",), ["sm_80"]),
        (("L40S", "H100"), ["sm_80", "sm_90"]),
        (("H100", "L40S", "A100"), ["sm_80", "sm_90"]),
        (("90a",), ["sm_90"]),
        (("sm_89", "sm_90"), ["sm_80", "sm_90"]),
        (("B200",), ["sm_100"]),
        (("RTX 5090",), ["sm_120"]),
        (("nvidia h100 80gb hbm3",), ["sm_90"]),
    ],
)
def test_each_gpu_gets_the_best_code_that_the_package_has_for_it(
    make_resolution: Make, gpus: tuple[str, ...], codes: list[str]
) -> None:
    plan = make_resolution(gpus=gpus).plan
    assert [architecture.sm for architecture in plan.target.architectures] == codes


def test_the_older_release_has_no_code_for_blackwell(make_resolution: Make) -> None:
    with pytest.raises(RequestError, match="no kernels for B200"):
        make_resolution(gpus=("B200",), version="2.7.2.post1")


def test_a_gpu_that_the_package_can_not_serve_is_refused_with_those_that_it_can(make_resolution: Make) -> None:
    with pytest.raises(RequestError) as caught:
        make_resolution(gpus=("T4",))
    assert "compute capability 7.5" in caught.value.what
    assert "A100" in caught.value.hint
    assert caught.value.exit_code == 2


def test_without_a_gpu_option_the_machines_own_is_taken(make_resolution: Make, make_host: Callable[..., Host]) -> None:
    host = make_host(gpus=(Gpu(name="NVIDIA L40S", capability=Architecture.parse("8.9")),))
    assert make_resolution(gpus=(), host=host).plan.target.architectures == (Architecture.parse("80"),)


@pytest.mark.parametrize("gpus", [(), ("native",), ("native", "H100")])
def test_without_a_gpu_there_is_no_native_target(make_resolution: Make, gpus: tuple[str, ...]) -> None:
    with pytest.raises(RequestError) as caught:
        make_resolution(gpus=gpus)
    assert "--gpu" in caught.value.hint


@pytest.mark.parametrize(
    ("profile", "kept", "without"),
    [
        ("full", 72, ()),
        ("inference", 48, ("backward", "dropout")),
        ("diffusion", 24, FEATURES),
        ("", 72, ()),
    ],
)
def test_profiles(make_resolution: Make, profile: str, kept: int, without: tuple[str, ...]) -> None:
    selection = make_resolution(profile=profile).plan.selection
    assert len(selection.kept) == kept
    assert len(selection.kept) + len(selection.dropped) == 72
    assert selection.without == without


@given(
    without=st.sets(st.sampled_from(FEATURES)),
    head_dims=st.sets(st.sampled_from([32, 64, 96, 128, 192, 256])),
    dtypes=st.sets(st.sampled_from(["fp16", "bf16"])),
)
def test_every_unit_is_kept_or_dropped_and_none_is_both(
    without: set[str], head_dims: set[int], dtypes: set[str]
) -> None:
    from attnforge.resolve.decisions import Notes
    from attnforge.resolve.selection import choose_selection

    recipe = find_recipe("flash-attn")
    request = Request(package="flash-attn", without=tuple(without), head_dims=tuple(head_dims), dtypes=tuple(dtypes))
    _, selection = choose_selection(request, recipe, recipe.release("2.8.3"), Notes())
    assert not set(selection.kept) & set(selection.dropped)
    assert len({*selection.kept, *selection.dropped}) == 72
    per_kind = 2 * (len(head_dims) or 6) * (len(dtypes) or 2)
    assert len(selection.kept) == per_kind * (3 - len(without & {"backward", "split"}))


@pytest.mark.parametrize("version", ["2.7.4.post1", "2.7.3", "2.7.2.post1", "2.6.3"])
def test_releases_with_other_head_dimensions_have_their_own(make_resolution: Make, version: str) -> None:
    resolution = make_resolution(version=version)
    assert len(resolution.plan.selection.kept) == 84
    assert resolution.estimate.known


@pytest.mark.parametrize(("version", "serves"), [("2.7.4.post1", True), ("2.7.3", True), ("2.7.2.post1", False)])
def test_which_releases_serve_blackwell(make_resolution: Make, version: str, serves: bool) -> None:
    if serves:
        plan = make_resolution(version=version, gpus=("B200",)).plan
        assert [one.sm for one in plan.target.architectures] == ["sm_100"]
    else:
        with pytest.raises(RequestError, match="has no kernels for B200"):
            make_resolution(version=version, gpus=("B200",))


@pytest.mark.parametrize(
    ("version", "changes", "warned"),
    [
        ("2.8.3", {}, True),
        ("2.8.3", {"profile": "diffusion"}, False),
        ("2.8.3", {"profile": "inference"}, False),
        ("2.8.3", {"without": ("backward",)}, False),
        ("2.8.3.post2", {}, False),
    ],
)
def test_who_builds_gradients_is_told_of_those_that_overflow(
    make_resolution: Make, version: str, changes: dict[str, object], warned: bool
) -> None:
    subjects = {warning.subject for warning in make_resolution(version=version, **changes).warnings}
    assert ("fa2-backward-overflow" in subjects) is warned


# --- free-threaded Python


@pytest.mark.parametrize("text", ["3.14t", "3.14.2t", "3.14t.2"])
def test_a_free_threaded_python_has_tags_of_its_own(make_resolution: Make, text: str) -> None:
    resolution = make_resolution(torch="2.15.0", python=text)
    assert resolution.plan.target.python == "3.14t"
    assert resolution.plan.wheel.endswith("-cp314-cp314t-linux_x86_64.whl")
    assert any("turns the lock on" in warning.message for warning in resolution.warnings)
    assert make_resolution(torch="2.15.0", python="3.15").plan.wheel.endswith("-cp315-cp315-linux_x86_64.whl")


@pytest.mark.parametrize(
    ("changes", "what", "hint"),
    [
        ({"torch": "2.6.0", "python": "3.13t"}, "PyTorch 2.6.0 has no build for Python 3.13t", "--python 3.13"),
        ({"torch": "2.13.0", "python": "3.13t"}, "PyTorch 2.13.0 has no build for Python 3.13t", "--python 3.14t"),
        ({"python": "3.14t", "universal": True}, "can't be for the free-threaded Python 3.14t", "without --universal"),
        (
            {"python": "3.14t", "package": "flash-attn-3", "version": "3.0.0b1"},
            "can't be built for the free-threaded Python 3.14t",
            "--python 3.14",
        ),
    ],
)
def test_what_a_free_threaded_python_can_not_have(
    make_resolution: Make, changes: dict[str, object], what: str, hint: str
) -> None:
    with pytest.raises(RequestError) as caught:
        make_resolution(**changes)
    assert what in caught.value.what
    assert hint in caught.value.hint


def test_a_pure_python_package_serves_a_free_threaded_python(make_resolution: Make) -> None:
    plan = make_resolution(package="flash-attn-4", version="4.0.0b36", python="3.14t", gpus=()).plan
    assert (plan.wheel, plan.target.python) == ("flash_attn_4-4.0.0b36-py3-none-any.whl", "3.14")


@pytest.mark.parametrize(
    ("changes", "what", "hint"),
    [
        ({"head_dims": (80,)}, "no head dimension '80'", "--head-dims 96"),
        ({"head_dims": (512,)}, "no head dimension '512'", "--head-dims 256"),
        ({"dtypes": ("fp8",)}, "no dtype 'fp8'", "--dtypes fp16"),
        ({"without": ("softcaps",)}, "no feature 'softcaps'", "--without softcap"),
        ({"profile": "difusion"}, "no profile 'difusion'", "--profile diffusion"),
        ({"gpus": ("H1000",)}, "H1000", "H100"),
        ({"torch": "9.9"}, "PyTorch 9.9 is not known", "--torch"),
        ({"torch": "banana"}, "not a PyTorch version", "--torch 2.11.0"),
        ({"torch": "2.11.0", "cuda": "12.1"}, "no build with CUDA 12.1", "--torch"),
        ({"torch": "2.11.0", "python": "3.9"}, "no build for Python 3.9", "--python 3.10"),
        ({"toolchain": "docker"}, "no toolchain 'docker'", "--toolchain"),
        ({"label": "-,-"}, "can't be a local version label", "--label"),
    ],
)
def test_what_can_not_be_met_is_refused_with_what_can(
    make_resolution: Make, changes: dict[str, object], what: str, hint: str
) -> None:
    with pytest.raises(RequestError) as caught:
        make_resolution(**changes)
    assert what in caught.value.what
    assert hint in caught.value.hint


def test_the_toolchain_of_the_package_index_serves_where_there_is_no_nvcc(make_resolution: Make) -> None:
    pin = make_resolution().plan.toolchain
    assert pin.origin == "pypi"
    assert pin.cuda == "13.0"
    assert all("==" in package for package in pin.packages)


def test_an_exact_toolkit_of_the_machine_is_preferred(make_resolution: Make, make_host: Callable[..., Host]) -> None:
    host = make_host(toolkits=(Toolkit(home="/cuda", cuda="13.0", nvcc="13.0.88"),))
    assert make_resolution(host=host).plan.toolchain.origin == "system"
    assert make_resolution(host=host, toolchain="pypi").plan.toolchain.origin == "pypi"


def test_a_toolkit_of_another_major_is_refused(make_resolution: Make, make_host: Callable[..., Host]) -> None:
    host = make_host(toolkits=(Toolkit(home="/cuda", cuda="12.6", nvcc="12.6.85"),))
    with pytest.raises(HostError) as caught:
        make_resolution(host=host, toolchain="system")
    assert "12.6" in caught.value.why
    assert caught.value.exit_code == 3


def test_a_toolkit_of_another_minor_is_warned_of(make_resolution: Make, make_host: Callable[..., Host]) -> None:
    host = make_host(toolkits=(Toolkit(home="/cuda", cuda="12.6", nvcc="12.6.85"),))
    resolution = make_resolution(host=host, torch="2.7.1", cuda="12.8", toolchain="system")
    assert resolution.plan.toolchain.cuda == "12.6"
    assert any("same major" in warning.message for warning in resolution.warnings)


@pytest.mark.parametrize(
    ("toolchain", "target", "hint"),
    [
        ("system", ("2.7.1", "12.8"), "set CUDA_HOME, or leave out --toolchain system"),
        ("system", ("2.11.0", "13.0"), "set CUDA_HOME, or leave out --toolchain system"),
        ("pypi", ("2.7.1", "12.8"), "--toolchain nvidia"),
    ],
)
def test_a_toolchain_that_is_not_there_says_what_is_missing(
    make_resolution: Make, toolchain: str, target: tuple[str, str], hint: str
) -> None:
    torch, cuda = target
    with pytest.raises(HostError) as caught:
        make_resolution(torch=torch, cuda=cuda, python="3.11", toolchain=toolchain)
    assert f"CUDA {cuda.partition('.')[0]}" in caught.value.what
    assert hint in caught.value.hint
    # The target's PyTorch is built with CUDA 13 already, or another way costs no other PyTorch.
    assert "--torch" not in caught.value.hint


def test_no_compiler_and_too_new_a_compiler(make_resolution: Make, make_host: Callable[..., Host]) -> None:
    with pytest.raises(HostError, match="no C\\+\\+ compiler"):
        make_resolution(host=make_host(compilers=()))
    new = HostCompiler(path="/usr/bin/g++", name="g++", version="99.1.0")
    with pytest.raises(HostError) as caught:
        make_resolution(host=make_host(compilers=(new,)))
    assert "g++ 99.1.0" in caught.value.why
    older = HostCompiler(path="/usr/bin/g++-12", name="g++", version="12.3.0")
    both = make_resolution(host=make_host(compilers=(new, older)))
    assert both.plan.toolchain.host_compiler == "g++ 12.3.0"


def test_a_package_can_mean_another_release_in_a_named_target() -> None:
    request = with_target(Request(package="flash-attn-3", target="reference"), "flash-attn-3")
    assert (request.package, request.source, request.gpus) == ("flashattn-hopper==3.0.0b1", "git", ("H100",))
    named = with_target(Request(package="flash-attn", target="reference", source="/a/clone"), "flash-attn")
    assert (named.package, named.source, named.gpus) == ("flash-attn", "/a/clone", ("L40S", "H100"))
    spelled = with_target(Request(package="Flash_Attn_3", target="reference"), "Flash_Attn_3")
    assert spelled.package == "flashattn-hopper==3.0.0b1"


@pytest.mark.parametrize(
    "package", ["flash-attn-3==3.0.0b1", "flash-attn-3@abcdef0", "flash-attn-3 @ git+https://h/x@v1"]
)
def test_a_version_or_commit_of_ones_own_stays_with_the_gpus_that_the_target_has_for_it(package: str) -> None:
    request = with_target(Request(package=package, target="reference"), "flash-attn-3")
    assert (request.package, request.source, request.gpus) == (package, "", ("H100",))


def test_what_the_user_says_wins_over_the_named_target() -> None:
    request = with_target(Request(package="flash-attn==2.8.3", target="reference", gpus=("A100",)), "flash-attn")
    assert request.package == "flash-attn==2.8.3"
    assert request.gpus == ("A100",)
    assert request.torch == "2.7.1"


@pytest.mark.parametrize("name", sorted(targets()))
def test_every_named_target_names_a_torch_that_exists_with_that_cuda_and_python(name: str) -> None:
    target = targets()[name]
    release = {release.version: release for release in torch_releases()}[target.torch]
    assert target.cuda in release.cuda
    assert target.python in release.pythons


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({}, "cu130torch2.11.sm90"),
        ({"profile": "diffusion", "head_dims": (64,)}, "cu130torch2.11.sm90.diffusion.hd64"),
        ({"profile": "inference", "dtypes": ("bf16",)}, "cu130torch2.11.sm90.inference.bf16"),
        ({"without": ("softcap", "alibi")}, "cu130torch2.11.sm90.noalibi.nosoftcap"),
        ({"gpus": ("L40S", "H100")}, "cu130torch2.11.sm80.sm90"),
        ({"label": "mine-1"}, "mine.1"),
    ],
)
def test_labels(make_resolution: Make, changes: dict[str, object], label: str) -> None:
    plan = make_resolution(**changes).plan
    assert plan.label == label
    name, version, _, tags = parse_wheel_filename(plan.wheel)
    assert (name, str(version)) == ("flash-attn", f"2.8.3+{label}")
    assert {str(tag) for tag in tags} == {"cp312-cp312-linux_x86_64"}


def test_a_label_is_a_function_of_what_is_in_the_wheel(make_resolution: Make) -> None:
    requests: list[dict[str, object]] = [
        {"profile": profile, "head_dims": dims, "dtypes": dtypes, "without": without}
        for profile in profiles()
        for dims in ((), (64,), (64, 128))
        for dtypes in ((), ("fp16",))
        for without in ((), ("alibi",))
    ]
    seen: dict[str, object] = {}
    for changes in requests:
        plan = make_resolution(**changes).plan
        assert seen.setdefault(plan.label, plan.selection) == plan.selection, changes


def test_the_digest_is_the_plans_alone(make_resolution: Make, make_host: Callable[..., Host]) -> None:
    small = make_host(cpus=1, memory=Memory(total_bytes=8, limit_bytes=8 << 30, available_bytes=6 << 30, limited_by=""))
    one, other = make_resolution(groups="4"), make_resolution(groups="4", host=small, jobs=1, memory=5 << 30)
    assert one.plan.digest == other.plan.digest
    assert one.estimate != other.estimate
    assert make_resolution(head_dims=(64,)).plan.digest != one.plan.digest


def test_a_plan_survives_json(make_plan: Callable[..., BuildPlan]) -> None:
    plan = make_plan(profile="diffusion")
    again = BuildPlan.model_validate(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    assert again.digest == plan.digest


def test_the_public_document_has_what_programs_read(make_resolution: Make) -> None:
    document = json.loads(json.dumps(make_resolution(profile="diffusion").public()))
    assert {"schema", "package", "version", "source", "target", "profile", "wheel", "digest", "decisions"} <= set(
        document
    )
    assert set(document["estimate"]) == {"seconds", "peak_bytes", "slots", "known"}
    assert {"python", "torch", "cuda", "gpus", "architectures"} <= set(document["target"])
    assert document["target"]["architectures"] == ["sm_90"]
    for decision in document["decisions"]:
        assert set(decision) == {"subject", "choice", "reason", "rejected"}
        assert decision["reason"]
        assert all(set(rejected) == {"choice", "reason"} for rejected in decision["rejected"])
    subjects = [decision["subject"] for decision in document["decisions"]]
    assert len(subjects) == len(set(subjects))
    assert {"gpus", "architectures", "torch", "python", "cuda", "toolchain", "kernels", "wheel"} <= set(subjects)


def test_a_package_without_a_recipe_is_planned_whole(make_resolution: Make) -> None:
    plan = make_resolution(package="some-extension", version="1.0", gpus=("L40S", "90a")).plan
    assert [architecture.sm for architecture in plan.target.architectures] == ["sm_89", "sm_90a"]
    assert plan.selection.kept == ()
    with pytest.raises(RequestError, match="no kernels of some-extension can be left out"):
        make_resolution(package="some-extension", version="1.0", profile="diffusion")


def test_memory_decides_how_many_compile_at_once(make_resolution: Make) -> None:
    estimates = [make_resolution(memory=size << 30, groups="none").estimate for size in (4, 9, 60)]
    assert [found.slots for found in estimates] == [1, 3, 4]
    assert estimates[0].seconds > estimates[2].seconds
    assert all(found.peak_bytes <= 60 << 30 for found in estimates)


def test_the_budget_keeps_a_reserve(make_host: Callable[..., Host]) -> None:
    host = make_host()
    assert memory_budget(Request(package="x"), host) < host.memory.available_bytes
    assert memory_budget(Request(package="x", memory=123), host) == 123


def test_memory_beyond_what_exists_is_not_promised(make_resolution: Make, make_host: Callable[..., Host]) -> None:
    limited = Memory(
        total_bytes=64 << 30, limit_bytes=3 << 30, available_bytes=3 << 30, limited_by="cgroup /a (memory.max)"
    )
    host = make_host(memory=limited)
    asked = Request(package="x", memory=30 << 30)
    assert memory_budget(asked, host) == memory_limit(asked, host) == 2 << 30
    (warning,) = (
        one for one in make_resolution(host=host, memory=30 << 30, groups="none").warnings if one.subject == "memory"
    )
    assert "--memory 30G is more than there is (3G, cgroup /a (memory.max)): compilers get 2G" in warning.message


@pytest.mark.parametrize("asked", [0, 1 << 30, 3 << 30])
def test_memory_that_exists_is_taken_as_asked(
    make_resolution: Make, make_host: Callable[..., Host], asked: int
) -> None:
    limited = Memory(total_bytes=64 << 30, limit_bytes=3 << 30, available_bytes=3 << 30, limited_by="")
    found = make_resolution(host=make_host(memory=limited), memory=asked, groups="none")
    assert "memory" not in [warning.subject for warning in found.warnings]
    assert memory_budget(Request(package="x", memory=asked), make_host(memory=limited)) == (asked or 2 << 30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    jobs=st.lists(st.tuples(st.floats(0.1, 1000), st.integers(1, 10**10)), min_size=1, max_size=40),
    slots=st.integers(1, 16),
    budget=st.integers(2**30, 2**38),
)
def test_an_estimate_is_between_the_bounds_of_any_schedule(
    make_host: Callable[..., Host], jobs: list[tuple[float, int]], slots: int, budget: int
) -> None:
    predictions = [Prediction(seconds, peak) for seconds, peak in jobs]
    units = [{"": prediction} for prediction in predictions]
    found = estimate(units, Request(package="x", jobs=slots, memory=budget), make_host())
    total, longest = sum(seconds for seconds, _ in jobs), max(seconds for seconds, _ in jobs)
    assert 1 <= found.slots <= slots
    assert found.seconds >= FIXED_SECONDS + max(longest, total / slots) - 0.1
    assert found.seconds <= FIXED_SECONDS + total + 0.1
    assert found.peak_bytes <= budget


def test_the_recipes_costs_are_known_by_unit(make_plan: Callable[..., BuildPlan]) -> None:
    plan = make_plan(profile="diffusion", head_dims=(64,), groups="none")
    keys = priors(plan, find_recipe("flash-attn"))
    assert len({key.partition(" | ")[0] for key in keys}) == 5
    assert cost_key(plan, "dispatch") in keys
    full = priors(make_plan(head_dims=(64,)), find_recipe("flash-attn"))
    assert max(found.seconds for found in full.values()) > max(found.seconds for found in keys.values())


def test_more_architectures_cost_more(make_plan: Callable[..., BuildPlan]) -> None:
    recipe = find_recipe("flash-attn")

    def total(*gpus: str) -> float:
        plan = make_plan(gpus=gpus, profile="diffusion")
        units = expected_units(plan, recipe, priors(plan, recipe))
        return sum(step.seconds for steps in units for step in steps.values())

    assert 1.5 < total("L40S", "H100") / total("H100") < 2


def test_errors_carry_what_why_and_hint() -> None:
    error = AttnforgeError("a", why="b", hint="c", link="d")
    assert str(error).splitlines() == ["a", "why: b", "hint: c", "see: d"]
