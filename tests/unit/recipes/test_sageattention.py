"""SageAttention 2.2.0 by its recipe: one wheel for several GPUs, its modules, what is refused, what it costs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from attnforge.errors import RequestError
from attnforge.model.amounts import Amount, Cost
from attnforge.model.cost import Prediction
from attnforge.model.host import Host, Toolkit
from attnforge.model.plan import Resolution, SourcePin
from attnforge.model.request import Request
from attnforge.recipes.catalogue import find_recipe
from attnforge.resolve.advice import check_source
from attnforge.resolve.predictions import expected_units, priors
from attnforge.resolve.resolver import resolve

Make = Callable[..., Resolution]

VERSION = "2.2.0"
WHOLE = find_recipe("sageattention")
RECIPE = WHOLE.at(VERSION)
PINNED = WHOLE.releases[-1].commits[VERSION]
TAG = "eb615cf6cf4d221338033340ee2de1c37fbdba4a"
REBOUND = "1bd826a37280f378de85de1171fd04115a6cf7f6"


@pytest.fixture
def make(make_host: Callable[..., Host]) -> Make:
    """Resolve 2.2.0 from git, on a machine with the toolkit of the target's CUDA."""

    def resolved(*gpus: str, commit: str = PINNED, cuda: str = "13.0", **changes: object) -> Resolution:
        source = SourcePin(kind="git", name="SageAttention", url="https://host/SageAttention", commit=commit)
        host = make_host(toolkits=(Toolkit(home="/cuda", cuda=cuda, nvcc=f"{cuda}.1"),))
        asked = {"package": "sageattention", "gpus": gpus, "cuda": cuda, "python": "3.11", **changes}
        return resolve(Request(**asked), RECIPE, VERSION, source, host)

    return resolved


def short(modules: tuple[str, ...]) -> list[str]:
    return [module.rpartition("._")[2] for module in modules]


@pytest.mark.parametrize(
    ("gpus", "codes", "modules"),
    [
        (("L40S", "H100"), ["sm_89", "sm_90a"], ["qattn_sm80", "qattn_sm89", "qattn_sm90", "fused"]),
        (("H100",), ["sm_90a"], ["qattn_sm80", "qattn_sm89", "qattn_sm90", "fused"]),
        (("L40S",), ["sm_89"], ["qattn_sm80", "qattn_sm89", "fused"]),
        (("A100",), ["sm_80"], ["qattn_sm80", "fused"]),
        (("A10", "A100"), ["sm_80", "sm_86"], ["qattn_sm80", "fused"]),
        (("RTX 5090",), ["sm_120a"], ["qattn_sm80", "qattn_sm89", "fused"]),
        (("A100", "H100"), ["sm_80", "sm_90a"], ["qattn_sm80", "qattn_sm89", "qattn_sm90", "fused"]),
    ],
)
def test_which_code_and_modules_gpus_get(
    make: Make, gpus: tuple[str, ...], codes: list[str], modules: list[str]
) -> None:
    target = make(*gpus).plan.target
    assert [one.sm for one in target.architectures] == codes
    assert short(RECIPE.modules_for(VERSION, target.architectures)) == modules


def test_each_module_has_the_code_that_its_gpus_run(make: Make) -> None:
    target = make("A100", "L40S", "H100").plan.target
    code = RECIPE.code_of(VERSION, target.architectures)
    assert {short((module,))[0]: codes for module, codes in code.items()} == {
        "qattn_sm80": ("sm_80", "sm_89", "sm_90a"),
        "qattn_sm89": ("sm_89", "sm_90a"),
        "qattn_sm90": ("sm_90a",),
        "fused": ("sm_80", "sm_89", "sm_90a"),
    }


@pytest.mark.parametrize("gpu", ["T4", "B300"])
def test_a_gpu_that_it_does_not_serve_is_refused(make: Make, gpu: str) -> None:
    with pytest.raises(RequestError, match=f"SageAttention has no kernels for {gpu}") as caught:
        make("H100", gpu)
    assert "sm_80" in caught.value.why
    assert "GPUs that it serves" in caught.value.hint


@pytest.mark.parametrize(
    ("gpu", "cuda", "torch", "message"),
    [
        ("L40S", "11.8", "2.6.0", "needs CUDA >=12.0"),
        ("RTX 5090", "12.6", "2.7.1", "no code for compute capability 10.0 and later"),
    ],
)
def test_a_cuda_below_the_floor_is_refused(make: Make, gpu: str, cuda: str, torch: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        make(gpu, cuda=cuda, torch=torch)
    assert "--cuda" in caught.value.hint


def test_cuda_12_6_is_warned_of_for_8_9_alone(make: Make) -> None:
    def warned(gpu: str) -> list[str]:
        return [warning.subject for warning in make(gpu, cuda="12.6", torch="2.7.1").warnings]

    assert "sage-89-launches" in warned("L40S")
    assert "sage-89-launches" not in warned("H100")


@pytest.mark.parametrize("commit", [TAG, REBOUND])
def test_a_commit_that_gives_noise_is_refused_for_its_gpus(make: Make, commit: str) -> None:
    with pytest.raises(RequestError, match="returns memory that it never wrote") as caught:
        make("L40S", "H100", commit=commit)
    assert "--source git" in caught.value.hint
    assert make("L40S", commit=commit).plan.source.commit == commit


COMPILED = "sageattention/sm90_compile.py"
OPERATOR = """\
@register_fake("sage::attention")
def attention_fake(query):
    return empty(query)


@torch.library.register_fake("sage::attention_scaled")
def {name}(query):
    return attention_fake(query)
"""


@pytest.mark.parametrize("commit", [PINNED, "0" * 40])
def test_a_source_that_shows_the_noise_is_refused_whatever_its_commit(make: Make, commit: str) -> None:
    bad = {COMPILED: OPERATOR.format(name="attention_scaled")}
    with pytest.raises(RequestError, match="launches no kernel") as caught:
        check_source(make("L40S", "H100", commit=commit).plan, lambda name: bad.get(name, ""))
    assert caught.value.link.endswith("/pull/307")
    # The operator is for 9.0 alone.
    assert check_source(make("L40S", commit=commit).plan, lambda name: bad.get(name, "")) == ()


@pytest.mark.parametrize("text", ["", OPERATOR.format(name="attention_scaled_fake"), "def attention_scaled(): ..."])
def test_a_source_that_does_not_show_it_is_built(make: Make, text: str) -> None:
    assert check_source(make("H100").plan, lambda name: text if name == COMPILED else "") == ()


def test_the_label_names_the_commit_since_the_version_does_not(make: Make) -> None:
    wheel = make("L40S", "H100", torch="2.11.0").plan.wheel
    assert wheel == f"sageattention-2.2.0+cu130torch2.11.sm89.sm90a.g{PINNED[:8]}-cp311-cp311-linux_x86_64.whl"


def test_all_extensions_are_built_at_once_and_see_the_gpus(make: Make) -> None:
    assert dict(make("H100").plan.settings)["EXT_PARALLEL"] == "4"
    assert WHOLE.asks_for_gpus


def test_a_unit_is_priced_for_what_it_is_compiled_for(make: Make) -> None:
    cost = Cost(
        kind="attention",
        units=("qk_int_sv_f16_cuda_sm80.cu", "qk_int_sv_f8_cuda_sm90.cu"),
        seconds={"cicc": Amount(shared=10), "ptxas": Amount(shared=1), "compile": Amount(shared=3)},
        bytes={"cicc": Amount(shared=2**30)},
        source="made up",
    )
    recipe = RECIPE.model_copy(update={"costs": (cost,)})
    plan = make("L40S", "H100").plan
    found = priors(plan, recipe)
    assert any("sm90.cu" in key and "sm_90a" in key for key in found)
    assert not any("sm90.cu" in key and "sm_89" in key for key in found)
    # Both for 9.0, and one of them for 8.9 as well; each has the host's step once.
    assert sorted(map(seconds_of, expected_units(plan, recipe, found))) == [14, 25]
    # For an A100 upstream's build has no unit of _qattn_sm90: nothing is priced.
    ampere = make("A100").plan
    assert [seconds_of(steps) for steps in expected_units(ampere, recipe, priors(ampere, recipe))] == [14]


def seconds_of(steps: dict[str, Prediction]) -> float:
    return sum(step.seconds for step in steps.values())
