"""Which toolchain a build gets, and that every rule goes by its nvcc and not by PyTorch's CUDA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attnforge.errors import HostError, RequestError
from attnforge.knowledge.redist import CudaRelease, pinned_release
from attnforge.model.host import Host, HostCompiler, Toolkit
from attnforge.model.plan import Resolution, SourcePin
from attnforge.model.request import Request
from attnforge.recipes.catalogue import find_recipe
from attnforge.resolve.decisions import Notes
from attnforge.resolve.resolver import resolve
from attnforge.resolve.toolchain import asked_release_version, choose_toolkit

Make = Callable[..., Resolution]
MakeHost = Callable[..., Host]


def kit(nvcc: str, **changes: Any) -> Toolkit:
    cuda = ".".join(nvcc.split(".")[:2])
    return Toolkit(**{"home": f"/opt/cuda-{cuda}", "cuda": cuda, "nvcc": nvcc, **changes})


def named(nvcc: str) -> Toolkit:
    return kit(nvcc, named_by="CUDA_HOME")


INCOMPLETE = kit("12.8.93", lacks=("nv/target (cuda_cccl)",))
CUDA_12 = {"torch": "2.7.1", "python": "3.11", "cuda": "12.8"}


# --- which one


@pytest.mark.parametrize(
    ("toolkits", "asked", "cuda", "origin", "nvcc"),
    [
        ((), "", "12.8", "nvidia", "12.8.93"),
        ((), "", "12.6", "nvidia", "12.6.85"),
        ((kit("13.0.88"),), "", "12.8", "nvidia", "12.8.93"),
        ((kit("12.6.85"),), "", "12.8", "nvidia", "12.8.93"),
        ((kit("12.8.61"),), "", "12.8", "system", "12.8.61"),
        ((kit("12.8.61"),), "nvidia", "12.8", "nvidia", "12.8.93"),
        ((kit("12.6.85"),), "system", "12.8", "system", "12.6.85"),
        ((named("12.4.131"),), "", "12.8", "system", "12.4.131"),
        ((named("12.4.131"), kit("12.8.93")), "", "12.8", "system", "12.4.131"),
        ((named("13.0.88"),), "", "12.8", "nvidia", "12.8.93"),
        ((named("13.0.88"), kit("12.8.61")), "", "12.8", "system", "12.8.61"),
        ((named("12.4.131"),), "nvidia", "12.8", "nvidia", "12.8.93"),
        # The nearest one of several, the newer of two that are as near.
        ((kit("12.4.131"), kit("12.6.85"), kit("13.0.88")), "system", "12.8", "system", "12.6.85"),
        ((kit("12.9.86"), kit("12.4.131")), "system", "12.6", "system", "12.4.131"),
        ((kit("12.4.131"), kit("12.8.93")), "system", "12.6", "system", "12.8.93"),
        ((INCOMPLETE, kit("12.6.85")), "system", "12.8", "system", "12.6.85"),
        ((INCOMPLETE,), "", "12.8", "nvidia", "12.8.93"),
    ],
)
def test_which_toolchain_is_taken(
    make_resolution: Make,
    make_host: MakeHost,
    toolkits: tuple[Toolkit, ...],
    asked: str,
    cuda: str,
    origin: str,
    nvcc: str,
) -> None:
    host = make_host(toolkits=toolkits)
    pin = make_resolution(host=host, torch="2.7.1", python="3.11", cuda=cuda, toolchain=asked).plan.toolchain
    assert (pin.origin, pin.nvcc) == (origin, nvcc)


def test_cuda_home_wins_over_the_package_index_too(make_resolution: Make, make_host: MakeHost) -> None:
    host = make_host(toolkits=(named("13.0.88"),))
    resolution = make_resolution(host=host, torch="2.15.0", python="3.12")
    assert resolution.plan.target.cuda == "13.2"
    assert resolution.plan.toolchain.nvcc == "13.0.88"
    assert any("CUDA 13.2" in warning.message for warning in resolution.warnings)


def test_a_named_toolkit_wins_over_one_that_fits_another_build_of_pytorch(
    make_resolution: Make, make_host: MakeHost
) -> None:
    """PyTorch 2.10 is built with 12.8 on the package index, and with 13.0 on PyTorch's own."""
    host = make_host(toolkits=(named("12.4.131"), kit("13.0.88")))
    plan = make_resolution(host=host, torch="2.10.0", python="3.12").plan
    assert (plan.target.cuda, plan.toolchain.nvcc) == ("12.8", "12.4.131")
    unnamed = make_host(toolkits=(kit("12.4.131"), kit("13.0.88")))
    plan = make_resolution(host=unnamed, torch="2.10.0", python="3.12").plan
    assert (plan.target.cuda, plan.toolchain.nvcc) == ("13.0", "13.0.88")


def test_a_toolkit_that_is_named_and_not_used_is_warned_of(make_resolution: Make, make_host: MakeHost) -> None:
    host = make_host(toolkits=(named("12.4.131"), kit("13.0.88")))
    resolution = make_resolution(host=host, torch="2.11.0", python="3.12")
    assert resolution.plan.toolchain.nvcc == "13.0.88"
    (warning,) = (one for one in resolution.warnings if one.subject == "toolchain")
    assert "CUDA_HOME names nvcc 12.4.131, which is not used" in warning.message
    assert warning.hint == "a PyTorch of CUDA 12: --torch 2.10.0"
    for changes in ({"torch": "2.10.0"}, {"torch": "2.11.0", "toolchain": "pypi"}):
        others = make_resolution(host=host, python="3.12", **changes).warnings
        assert not [one for one in others if "not used" in one.message]


def test_a_target_without_a_release_of_its_minor_gets_the_nearest(make_resolution: Make, make_host: MakeHost) -> None:
    # PyTorch 2.4 is built with CUDA 12.1, of which no release is pinned.
    resolution = make_resolution(version="2.7.2.post1", torch="2.4.1", python="3.11", cuda="12.1")
    assert resolution.plan.toolchain.release == "12.4.1"
    (warning,) = (warning for warning in resolution.warnings if "same major" in warning.message)
    assert "--toolchain nvidia==12.1.1" in warning.hint
    with pytest.raises(HostError, match=r"no CUDA 12\.1 of NVIDIA's is pinned") as caught:
        make_resolution(version="2.7.2.post1", torch="2.4.1", python="3.11", cuda="12.1", toolchain="nvidia")
    assert "--toolchain nvidia==12.1.1" in caught.value.hint


def test_another_architecture_has_archives_of_its_own(make_host: MakeHost) -> None:
    (first, *_) = choose_toolkit("12.8", "", make_host(machine="aarch64"), Notes()).archives
    assert "linux-sbsa" in first.path
    with pytest.raises(HostError, match="can be fetched"):
        choose_toolkit("12.8", "", make_host(machine="ppc64le"), Notes())
    with pytest.raises(HostError, match="no CUDA toolkit for ppc64le"):
        choose_toolkit("12.8", "nvidia", make_host(machine="ppc64le"), Notes())


def test_the_pin_has_all_that_is_fetched(make_resolution: Make) -> None:
    resolution = make_resolution(**CUDA_12)
    pin = resolution.plan.toolchain
    release = pinned_release("12.8", "x86_64")
    assert release is not None
    assert (pin.release, pin.manifest, pin.archives) == (release.version, release.manifest, release.archives)
    assert pin.download_bytes == 81_298_228
    assert any("81 MB" in decision.reason for decision in resolution.decisions if decision.subject == "toolchain")


# --- a release by name


@pytest.mark.parametrize(("text", "version"), [("nvidia==12.8.1", "12.8.1"), ("nvidia", ""), ("system", ""), ("", "")])
def test_a_release_is_read(text: str, version: str) -> None:
    assert asked_release_version(text) == version


@pytest.mark.parametrize("text", ["nvidia==12.8", "nvidia==", "nvidia==12.8.1.post1", "nvidia==../../x"])
def test_what_is_no_release_is_refused(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        asked_release_version(text)
    assert "nvidia==12.8.1" in caught.value.hint


def fetched(version: str) -> CudaRelease:
    release = pinned_release("12.4.1", "x86_64")
    assert release is not None
    return release.model_copy(update={"version": version})


def by_name(host: Host, release: CudaRelease, **changes: Any) -> Resolution:
    request = Request(
        **{"package": "flash-attn", "gpus": ("H100",), **CUDA_12, **changes, "toolchain": "nvidia==x.y.z"}
    )
    request = request.model_copy(update={"toolchain": f"nvidia=={release.version}"})
    source = SourcePin(kind="sdist", name="x.tar.gz", sha256="a" * 64)
    return resolve(request, find_recipe("flash-attn"), "2.8.3", source, host, fetched=release)


def test_a_release_that_is_named_wins(make_host: MakeHost) -> None:
    resolution = by_name(make_host(toolkits=(named("12.8.93"),)), fetched("12.4.99"))
    assert resolution.plan.toolchain.release == "12.4.99"
    (warning,) = (warning for warning in resolution.warnings if "same major" in warning.message)
    # A pinned release, not the first patch of that minor.
    assert "--toolchain nvidia==12.8.2" in warning.hint
    with pytest.raises(RequestError, match=r"CUDA 12\.4\.99 can't compile for a PyTorch that is built with CUDA 13\.0"):
        by_name(make_host(), fetched("12.4.99"), torch="2.11.0", cuda="13.0")


# --- what is wrong with one


def test_an_incomplete_toolkit_is_refused_where_it_is_asked_for(make_resolution: Make, make_host: MakeHost) -> None:
    host = make_host(toolkits=(INCOMPLETE,))
    by_variable = make_host(toolkits=(INCOMPLETE.model_copy(update={"named_by": "CUDA_HOME"}),))
    for machine, asked in ((host, "system"), (by_variable, "")):
        with pytest.raises(HostError, match="is incomplete") as caught:
            make_resolution(host=machine, toolchain=asked, **CUDA_12)
        assert "nv/target (cuda_cccl)" in caught.value.why
    resolution = make_resolution(host=host, toolchain="nvidia", **CUDA_12)
    (decision,) = (one for one in resolution.decisions if one.subject == "toolchain")
    assert any("lacks nv/target" in rejected.reason for rejected in decision.rejected)


def test_an_incomplete_toolkit_is_named_where_nothing_else_serves(make_host: MakeHost) -> None:
    host = make_host(toolkits=(INCOMPLETE,), machine="ppc64le")
    with pytest.raises(HostError, match="is incomplete"):
        choose_toolkit("12.8", "", host, Notes())


@pytest.mark.parametrize(
    ("libc", "toolkits", "changes", "refused"),
    [
        ("glibc 2.41", (), CUDA_12, True),
        ("glibc 2.40", (), CUDA_12, False),
        ("glibc 2.41", (), {"torch": "2.11.0"}, False),
        ("glibc 2.42", (), {"torch": "2.11.0"}, True),
        ("glibc 2.43", (), {"torch": "2.15.0"}, False),
        ("glibc 2.41", (kit("12.8.93", max_glibc="2.40"),), CUDA_12, True),
        # A distribution's own toolkit may have headers that are changed for its glibc.
        ("glibc 2.41", (kit("12.8.93"),), CUDA_12, False),
        ("musl", (), CUDA_12, False),
    ],
)
def test_a_glibc_that_is_too_new_for_the_headers(
    make_resolution: Make,
    make_host: MakeHost,
    libc: str,
    toolkits: tuple[Toolkit, ...],
    changes: dict[str, str],
    refused: bool,
) -> None:
    host = make_host(libc=libc, toolkits=toolkits)
    if not refused:
        assert make_resolution(host=host, **changes).plan
        return
    with pytest.raises(HostError, match="compile with glibc up to") as caught:
        make_resolution(host=host, **changes)
    assert libc in caught.value.what
    assert caught.value.link


# --- rules follow the compiler that compiles


def sage(host: Host, **changes: Any) -> Resolution:
    request = Request(package="sageattention", gpus=("L40S",), torch="2.8.0", python="3.11", **changes)
    commit = "d1a57a546c3d395b1ffcbeecc66d81db76f3b4b5"
    source = SourcePin(kind="git", name="SageAttention", commit=commit, url="https://github.com/thu-ml/SageAttention")
    recipe = find_recipe("sageattention").at("2.2.0")
    return resolve(request, recipe, "2.2.0", source, host)


def test_an_advisory_goes_by_nvcc(make_host: MakeHost) -> None:
    # PyTorch 2.8 is built with CUDA 12.8; 8.9 kernels are launched wrongly where nvcc is older (SA#199).
    older = sage(make_host(toolkits=(named("12.4.131"),)))
    assert older.plan.target.cuda == "12.8"
    (warning,) = (one for one in older.warnings if one.subject == "sage-89-launches")
    assert "CUDA_HOME to a toolkit of CUDA 12.8" in warning.hint
    # Of PyTorch's CUDA no compiler is good enough, of its major one is: --cuda would leave CUDA_HOME's in place.
    both = sage(make_host(toolkits=(named("12.4.131"),)), cuda="12.6")
    (warning,) = (one for one in both.warnings if one.subject == "sage-89-launches")
    assert "--toolchain nvidia==12.8.2" in warning.hint
    (warning,) = (one for one in sage(make_host(), cuda="12.6").warnings if one.subject == "sage-89-launches")
    assert warning.hint == "--cuda 12.8 or later"
    assert "sage-89-launches" not in [warning.subject for warning in sage(make_host()).warnings]
    newer = sage(make_host(toolkits=(named("12.8.93"),)), cuda="12.6")
    assert "sage-89-launches" not in [warning.subject for warning in newer.warnings]
    with pytest.raises(RequestError, match="needs CUDA 12.4 for compute capability 8.9"):
        sage(make_host(toolkits=(named("12.3.107"),)))


def test_the_need_of_a_release_goes_by_nvcc(make_resolution: Make, make_host: MakeHost) -> None:
    changes = {"package": "flash-attn-3", "version": "3.0.0b1", "torch": "2.8.0", "python": "3.11"}
    assert make_resolution(**changes).plan.toolchain.cuda == "12.8"
    with pytest.raises(
        RequestError, match=r"needs a compiler of CUDA >=12\.8,!=12\.9, the chosen one is of 12\.4"
    ) as caught:
        make_resolution(host=make_host(toolkits=(named("12.4.131"),)), **changes)
    assert "12.8" in caught.value.why
    assert "--toolchain nvidia" in caught.value.hint
    with pytest.raises(RequestError, match=r"the chosen one is of 12\.4") as caught:
        make_resolution(host=make_host(toolkits=(named("12.4.131"),)), cuda="12.6", **changes)
    assert "--toolchain nvidia==12.8.2" in caught.value.hint
    with pytest.raises(RequestError, match=r"needs CUDA >=12\.8,!=12\.9, the target has 12\.6") as caught:
        make_resolution(cuda="12.6", **changes)
    assert "--cuda" in caught.value.hint
    older = make_resolution(host=make_host(toolkits=(named("12.8.93"),)), cuda="12.6", **changes)
    assert (older.plan.target.cuda, older.plan.toolchain.cuda) == ("12.6", "12.8")


def test_the_limits_of_the_host_compiler_go_by_nvcc(make_resolution: Make, make_host: MakeHost) -> None:
    # nvcc 12.4 takes g++ up to 13, nvcc 12.8 up to 14 (and PyTorch's build up to 13 with either); 13.0 up to 15.
    fourteen = HostCompiler(path="/usr/bin/g++", name="g++", version="14.2.0")
    host = make_host(toolkits=(named("13.0.88"),), compilers=(fourteen,))
    assert make_resolution(host=host, torch="2.15.0", python="3.12").plan.toolchain.host_compiler == "g++ 14.2.0"
    twelve = HostCompiler(path="/usr/bin/g++-12", name="g++", version="12.2.0")
    host = make_host(
        toolkits=(kit("12.0.140"),), compilers=(HostCompiler(path="/g", name="g++", version="13.1.0"), twelve)
    )
    changes = {"torch": "2.7.1", "python": "3.11", "cuda": "12.8"}
    assert make_resolution(host=host, **changes).plan.toolchain.host_compiler == "g++ 13.1.0"
    assert make_resolution(host=host, toolchain="system", **changes).plan.toolchain.host_compiler == "g++ 12.2.0"


def test_a_definition_goes_by_nvcc(make_resolution: Make, make_host: MakeHost) -> None:
    host = make_host(toolkits=(named("12.8.93"),))
    assert make_resolution(version="2.7.2.post1", torch="2.11.0").plan.defines
    assert not make_resolution(host=host, version="2.7.2.post1", torch="2.11.0", cuda="12.6").plan.defines


@given(wanted=st.sampled_from([6, 8]), minors=st.sets(st.sampled_from([0, 1, 2, 3, 4, 5, 6, 8, 9]), min_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_nearest_of_any_is_taken(make_resolution: Make, make_host: MakeHost, wanted: int, minors: set[int]) -> None:
    host = make_host(toolkits=tuple(kit(f"12.{minor}.1") for minor in minors))
    cuda = f"12.{wanted}"
    changes = {"torch": "2.7.1", "python": "3.11", "toolchain": "system", "groups": "none"}
    plan = make_resolution(host=host, cuda=cuda, **changes).plan
    chosen = int(plan.toolchain.cuda.split(".")[1])
    assert abs(chosen - wanted) == min(abs(minor - wanted) for minor in minors)
    assert 2 * wanted - chosen not in minors or chosen >= wanted


# --- the label says which


def test_the_label_names_another_compiler(make_resolution: Make, make_host: MakeHost) -> None:
    host = make_host(toolkits=(named("12.4.131"),))
    assert make_resolution(host=host, **CUDA_12).plan.label == "cu128torch2.7.nvcc12.4.sm90"
    assert make_resolution(**CUDA_12).plan.label == "cu128torch2.7.sm90"
    pairs = make_resolution(host=host, universal=True, torch="2.5-2.6", python="3.11", cuda="12.4")
    assert pairs.plan.label == "cu124torch2.5to2.6.py3.11.sm90"
    pairs = make_resolution(host=host, universal=True, torch="2.7-2.8", python="3.11", cuda="12.8")
    assert pairs.plan.label == "cu128torch2.7to2.8.py3.11.nvcc12.4.sm90"
