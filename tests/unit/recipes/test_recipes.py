"""The recipes that come with attnforge: which code each GPU gets, what is asked for, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from attnforge.errors import RequestError
from attnforge.model.host import Host, Toolkit
from attnforge.model.plan import BuildPlan, Resolution, SourcePin
from attnforge.model.recipe import Recipe
from attnforge.model.request import Request
from attnforge.recipes.catalogue import find_recipe, recipes
from attnforge.recipes.own import mistakes
from attnforge.resolve.estimate import FIXED_SECONDS
from attnforge.resolve.predictions import cost_key, priors
from attnforge.resolve.resolver import resolve

Make = Callable[..., Resolution]


@pytest.mark.parametrize("recipe", recipes().values(), ids=lambda recipe: recipe.name)
def test_a_bundled_recipe_keeps_the_rules_of_a_users_own(recipe: Recipe) -> None:
    assert list(mistakes(recipe)) == []


@pytest.mark.parametrize("recipe", recipes().values(), ids=lambda recipe: recipe.name)
def test_a_compiled_package_says_which_modules_it_has(recipe: Recipe) -> None:
    compiled = any(release.compiled and release.sha256 for release in recipe.releases)
    assert bool(recipe.modules) or not compiled


@pytest.mark.parametrize(
    ("package", "version", "codes"),
    [
        ("causal-conv1d", "1.7.0", ["sm_80", "sm_90"]),
        ("causal-conv1d", "1.6.2.post1", ["sm_80", "sm_90"]),
        ("mamba-ssm", "2.3.2.post1", ["sm_80", "sm_90"]),
        ("mamba-ssm", "2.2.6.post3", ["sm_80", "sm_90"]),
        ("grouped-gemm", "0.3.0", ["sm_89", "sm_90"]),
    ],
)
def test_the_code_for_the_gpus_of_the_reference_target(
    make_resolution: Make, package: str, version: str, codes: list[str]
) -> None:
    plan = make_resolution(package=package, version=version, gpus=("L40S", "H100")).plan
    assert [architecture.sm for architecture in plan.target.architectures] == codes


@pytest.mark.parametrize(
    ("gpu", "code"),
    [("T4", "sm_75"), ("A100", "sm_80"), ("A10", "sm_80"), ("B300", "sm_103")],
)
def test_each_gpu_gets_code_that_runs_on_it(make_resolution: Make, gpu: str, code: str) -> None:
    plan = make_resolution(package="causal-conv1d", version="1.7.0", gpus=(gpu,)).plan
    assert [architecture.sm for architecture in plan.target.architectures] == [code]


@pytest.mark.parametrize(
    ("package", "version", "gpu"),
    [
        ("grouped-gemm", "0.3.0", "T4"),
        ("flash-attn", "2.8.3", "T4"),
        # Machine code of desktop GPUs does not run on Tegra, and the other way round.
        ("flash-attn", "2.8.3", "Jetson Orin"),
    ],
)
def test_a_gpu_that_a_package_does_not_serve_is_refused(
    make_resolution: Make, package: str, version: str, gpu: str
) -> None:
    with pytest.raises(RequestError) as caught:
        make_resolution(package=package, version=version, gpus=("H100", gpu))
    assert "has no kernels for" in caught.value.what
    assert "can be compiled for" in caught.value.why
    assert "GPUs that it serves" in caught.value.hint


def test_a_pytorch_whose_triton_is_too_old_is_refused(make_resolution: Make, make_host: Callable[..., Host]) -> None:
    host = make_host(toolkits=(Toolkit(home="/cuda", cuda="12.8", nvcc="12.8.93"),))
    older = {"package": "mamba-ssm", "host": host, "torch": "2.7.1", "cuda": "12.8"}
    with pytest.raises(RequestError, match=r"Mamba needs PyTorch >=2.9, the target has 2.7.1"):
        make_resolution(version="2.3.2.post1", **older)
    assert make_resolution(version="2.2.6.post3", **older).plan.target.torch == "2.7.1"


@pytest.mark.parametrize(
    ("package", "version", "setting"),
    [
        ("causal-conv1d", "1.7.0", ("CAUSAL_CONV1D_FORCE_BUILD", "TRUE")),
        ("mamba-ssm", "2.3.2.post1", ("MAMBA_FORCE_BUILD", "TRUE")),
    ],
)
def test_no_wheel_is_downloaded_in_place_of_a_build(
    make_resolution: Make, package: str, version: str, setting: tuple[str, str]
) -> None:
    assert setting in make_resolution(package=package, version=version).plan.settings


@pytest.mark.parametrize(
    ("package", "version", "units"),
    [("causal-conv1d", "1.7.0", 4), ("mamba-ssm", "2.3.2.post1", 10), ("grouped-gemm", "0.3.0", 2)],
)
def test_units_that_are_known_by_their_names_have_an_estimate(
    make_resolution: Make, package: str, version: str, units: int
) -> None:
    recipe = find_recipe(package)
    names = [name for cost in recipe.costs for name in cost.units]
    assert len(names) == len(set(names)) == units
    one = make_resolution(package=package, version=version, gpus=("H100",), jobs=1)
    two = make_resolution(package=package, version=version, gpus=("H100", "L40S"), jobs=1)
    keys = priors(one.plan, recipe)
    assert {cost_key(one.plan, name) for name in names} <= keys.keys()
    # On one slot it is the time of all units; a second architecture repeats what is done for each.
    compiles = sum(keys[cost_key(one.plan, name)].seconds for name in names)
    assert one.estimate.seconds == pytest.approx(FIXED_SECONDS + compiles, abs=0.3 * units)
    assert 1.3 * compiles < two.estimate.seconds < 2 * one.estimate.seconds


# --- pure Python


@pytest.fixture
def make_sage(make_resolution: Make, make_host: Callable[..., Host]) -> Callable[..., BuildPlan]:
    """Plan SageAttention 1 on a machine that has nothing: no compiler, no toolkit, no GPU."""

    def make(*, host: Host | None = None, **changes: object) -> BuildPlan:
        bare = host or make_host(compilers=(), toolkits=(), gpus=())
        fields = {"package": "sageattention", "version": "1.0.6", "gpus": (), **changes}
        return make_resolution(host=bare, **fields).plan

    return make


def test_a_pure_python_package_asks_for_no_toolchain(make_sage: Callable[..., BuildPlan]) -> None:
    plan = make_sage()
    assert plan.wheel == "sageattention-1.0.6-py3-none-any.whl"
    assert not plan.is_compiled
    assert (plan.toolchain.origin, plan.toolchain.nvcc, plan.toolchain.host_compiler) == ("none", "", "")
    assert (plan.target.torch, plan.target.cuda, plan.target.architectures, plan.label) == ("", "", (), "")


@pytest.mark.parametrize(
    "changes",
    [
        {"gpus": ("H100",)},
        {"gpus": ("L40S", "native")},
        {"torch": "2.7.1", "cuda": "12.8"},
        {"torch": "2.11.0", "toolchain": "system"},
        {"label": "none"},
    ],
)
def test_its_plan_is_the_same_whatever_it_runs_on(
    make_sage: Callable[..., BuildPlan], changes: dict[str, object]
) -> None:
    assert make_sage(**changes) == make_sage()


def test_its_wheel_can_be_labelled(make_sage: Callable[..., BuildPlan]) -> None:
    assert make_sage(label="mine").wheel == "sageattention-1.0.6+mine-py3-none-any.whl"


def test_a_commit_is_in_its_name(make_host: Callable[..., Host]) -> None:
    pin = SourcePin(kind="git", name="SageAttention", sha256="", url="https://x/y", commit="0123456789" * 4)
    plan = resolve(Request(package="sageattention"), find_recipe("sageattention"), "1.0.6", pin, make_host()).plan
    assert plan.wheel == "sageattention-1.0.6+g01234567-py3-none-any.whl"


def test_a_gpu_that_a_pure_python_package_does_not_serve_is_refused(
    make_host: Callable[..., Host], make_plan: Callable[..., BuildPlan]
) -> None:
    recipe = find_recipe("sageattention")
    release = recipe.releases[0].model_copy(update={"architectures": ("80", "90")})
    limited = recipe.model_copy(update={"releases": (release,)})
    source = make_plan().source
    with pytest.raises(RequestError, match="has no kernels for T4"):
        resolve(Request(package="sageattention", gpus=("T4",)), limited, "1.0.6", source, make_host())
    resolve(Request(package="sageattention", gpus=("L40S", "H100")), limited, "1.0.6", source, make_host())


def test_no_kernel_of_it_can_be_left_out(make_sage: Callable[..., BuildPlan]) -> None:
    with pytest.raises(RequestError, match="no kernels of sageattention can be left out"):
        make_sage(profile="diffusion")
