"""Facts are held against each other: data that disagrees with itself is worse than none."""

from __future__ import annotations

import re

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from attnforge.errors import RequestError
from attnforge.knowledge.advisories import Advisory, advisories
from attnforge.knowledge.gpus import find_gpu
from attnforge.knowledge.host_compilers import compiler_limits, is_newer_glibc
from attnforge.knowledge.redist import components_of, known_manifests, pinned_release, pinned_releases, platform_of
from attnforge.knowledge.targets import find_profile, find_target, profiles, targets
from attnforge.knowledge.toolchains import pypi_toolchains
from attnforge.knowledge.torch import (
    TorchRelease,
    cxx_of,
    default_torch,
    find_torch,
    is_listed,
    torch_cuda,
    torch_releases,
)
from attnforge.model.kernels import KernelName
from attnforge.model.recipe import Recipe
from attnforge.model.target import Architecture
from attnforge.recipes.catalogue import find_adapter, find_recipe, recipes, suggestions

TAG = "eb615cf6cf4d221338033340ee2de1c37fbdba4a"
LATER = "d1a57a546c3d395b1ffcbeecc66d81db76f3b4b5"


@pytest.mark.parametrize("release", torch_releases(), ids=lambda release: release.version)
def test_torch_releases_agree_with_themselves(release: TorchRelease) -> None:
    assert release.index_cuda in release.cuda
    assert list(release.cuda) == sorted(release.cuda, key=Version)
    assert list(release.pythons) == sorted(release.pythons, key=Version)
    assert all(compiler_limits(cuda) for cuda in release.cuda)
    assert all(python.endswith("t") for python in release.free_threaded)
    assert {python.removesuffix("t") for python in release.free_threaded} <= {*release.pythons}
    assert not release.read_from


def test_torch_releases_are_told_apart() -> None:
    versions = [release.version for release in torch_releases()]
    assert len(set(versions)) == len(versions)
    assert versions == sorted(versions, key=Version)
    assert default_torch().version in versions


@pytest.mark.parametrize(("text", "listed"), [("2.11", True), ("2.11.0+cu128", True), ("2.11.9", False), ("x", False)])
def test_what_the_table_has(text: str, listed: bool) -> None:
    assert is_listed(text) is listed


@pytest.mark.parametrize(("version", "cxx"), [("2.13.0", 17), ("2.14.0", 20), ("2.99.1", 20), ("1.13.1", 17)])
def test_the_standard_of_a_pytorch_that_is_not_listed_is_that_of_the_one_before(version: str, cxx: int) -> None:
    assert cxx_of(version) == cxx


def test_a_release_that_was_read_is_found_beside_the_others() -> None:
    read = TorchRelease(version="2.99.1", cuda=("14.0",), index_cuda="14.0", pythons=("3.16",), read_from="x.whl")
    assert find_torch("2.99", (read,)) == find_torch("2.99.1", (read,)) == read
    assert torch_cuda("2.99.1+cu140", (read,)) == "14.0"
    assert find_torch("2.11", (read,)) == find_torch("2.11")


def test_the_default_torch_needs_no_toolkit_of_the_machine() -> None:
    assert default_torch().index_cuda in {toolchain.cuda for toolchain in pypi_toolchains()}


@pytest.mark.parametrize(
    ("text", "version"), [("2.11.0", "2.11.0"), ("2.11", "2.11.0"), ("2.7", "2.7.1"), ("2.11.0+cu130", "2.11.0")]
)
def test_torch_is_found(text: str, version: str) -> None:
    assert find_torch(text).version == version


@pytest.mark.parametrize("text", ["2.7.9", "3.0", "1.0.0"])
def test_an_unknown_torch_names_near_ones(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        find_torch(text)
    assert "--torch 2." in caught.value.hint


@pytest.mark.parametrize("advisory", advisories(), ids=lambda advisory: advisory.id)
def test_advisories_are_whole(advisory: Advisory) -> None:
    assert advisory.message
    assert advisory.hint
    assert advisory.link.startswith("https://")
    for specifier in (advisory.versions, advisory.torch, advisory.cuda):
        SpecifierSet(specifier)
    for gpu in (*advisory.gpus, advisory.gpus_below, advisory.gpus_from):
        if gpu:
            Architecture.parse(gpu)
    re.compile(advisory.pattern)
    assert bool(advisory.file) == bool(advisory.pattern)
    for package in advisory.packages if advisory.features else ():
        assert set(advisory.features) <= set(find_recipe(package).features)
    assert advisory.packages or not advisory.features


def test_advisories_have_different_ids() -> None:
    assert len({advisory.id for advisory in advisories()}) == len(advisories())


@pytest.mark.parametrize(
    ("package", "version", "commit", "cuda", "gpu", "ids"),
    [
        ("flash-attn-3", "3.0.0b1", "", "12.8", "H100", set()),
        ("flash-attn-3", "3.0.0b1", "", "12.6", "H100", {"fa3-ptxas-warpgroup-wait"}),
        ("sageattention", "2.2.0", LATER, "12.6", "L40S", {"sage-89-launches"}),
        ("sageattention", "2.2.0", LATER, "12.3", "L40S", {"sage-89-launches", "sage-89-below-12.4"}),
        ("sageattention", "2.2.0", LATER, "12.6", "H100", set()),
        ("sageattention", "2.2.0", LATER, "12.3", "H100", {"sage-90-below-12.4"}),
        ("sageattention", "2.2.0", LATER, "12.2", "H100", {"sage-90-below-12.3"}),
        ("sageattention", "2.2.0", LATER, "12.6", "RTX 5090", {"blackwell-below-12.8"}),
        # One version, several commits: that of the tag gives noise on 9.0, and a folder does not say which it is.
        ("sageattention", "2.2.0", TAG, "12.8", "H100", {"sage-90-noise"}),
        ("sageattention", "2.2.0", TAG, "12.8", "L40S", set()),
        ("sageattention", "2.2.0", "", "12.8", "H100", {"sage-90-unknown-commit"}),
        ("sageattention", "1.0.6", "", "12.6", "L40S", set()),
        ("flash-attn", "2.8.3", "", "12.6", "B200", {"blackwell-below-12.8"}),
        ("flash-attn", "2.8.3", "", "13.0", "B200", set()),
    ],
)
def test_advisories_concern_what_they_say(
    package: str, version: str, commit: str, cuda: str, gpu: str, ids: set[str]
) -> None:
    capabilities = (find_gpu(gpu).capability,)
    concerning = [a for a in advisories() if a.concerns(package, version, "2.7.1", cuda, capabilities, commit)]
    # Those with a file are for the source to show.
    assert {a.id for a in concerning if not a.file} == ids


@pytest.mark.parametrize(
    ("version", "features", "concerned"),
    [
        ("2.8.3", ("backward", "dropout"), True),
        ("2.8.3.post1", ("backward",), True),
        ("2.7.4.post1", ("backward",), True),
        ("2.8.3", ("dropout",), False),
        ("2.8.3.post2", ("backward",), False),
        ("2.8.4", ("backward",), False),
    ],
)
def test_a_backward_that_overflows_concerns_who_builds_it(
    version: str, features: tuple[str, ...], concerned: bool
) -> None:
    (advisory,) = (one for one in advisories() if one.id == "fa2-backward-overflow")
    assert advisory.concerns("flash-attn", version, "2.11.0", "13.0", (), features=features) is concerned


@pytest.mark.parametrize("recipe", recipes().values(), ids=lambda recipe: recipe.name)
def test_recipes_agree_with_themselves(recipe: Recipe) -> None:
    assert recipe.release(recipe.default_version) is not None
    pinned = [{*release.sha256, *release.carriers, *release.commits} for release in recipe.releases]
    assert any(recipe.default_version in versions for versions in pinned)
    assert all("==" in requirement for requirement in recipe.requirements)
    for release in recipe.releases:
        assert release.source
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in release.sha256.values())
        assert all(release.covers(version) for version in release.sha256)
        for text in release.architectures:
            assert Architecture.parse(text).digits == text
        for remedy in release.remedies:
            assert remedy.why
            assert remedy.source
            SpecifierSet(remedy.cuda)
    find_adapter(recipe)


@pytest.mark.parametrize("recipe", recipes().values(), ids=lambda recipe: recipe.name)
def test_what_tells_no_kernels_apart_leaves_none_out(recipe: Recipe) -> None:
    assert recipe.kernels or not recipe.features


@pytest.mark.parametrize("recipe", [r for r in recipes().values() if r.kernels], ids=lambda recipe: recipe.name)
def test_kernels_and_features_of_recipes_agree(recipe: Recipe) -> None:
    kernels = recipe.kernels
    assert kernels is not None
    kinds = set(kernels.kinds.values())
    assert {one.kind for one in kernels.sets} == kinds
    names = [KernelName.parse(name) for release in recipe.releases for name in kernels.names(release.head_dims)]
    words = {word for name in names for word in name.words}
    for feature in recipe.features.values():
        assert set(feature.kinds) <= kinds
        assert feature.asks
        # What is left out has to be noticed: by a guard on the call, by upstream's own code, or because no kernel of
        # that kind is there.
        assert feature.guard or feature.kinds or feature.refused
        assert set(feature.variants) <= words
    assert {cost.kind for cost in recipe.costs if not cost.units} <= kinds | {"dispatch"}
    assert kinds <= {cost.kind for cost in recipe.costs}
    for cost in recipe.costs:
        assert 0 < cost.alone(0.0) <= cost.alone(1.0)
        assert 0 < cost.peak(0.0) <= cost.peak(1.0)
        assert cost.source
    assert set(kernels.symbol_dtypes.values()) == set(kernels.dtypes)
    assert set(kernels.file_dtypes.values()) | set(kernels.dtype_settings) <= set(kernels.dtypes)
    # Macros drop features from kernels in silence: without an adapter that guards the calls, results would be wrong.
    assert recipe.adapter or not any(feature.macro for feature in recipe.features.values())


@pytest.mark.parametrize("profile", profiles().values(), ids=lambda profile: profile.name)
def test_profiles_leave_out_features_that_exist(profile: object) -> None:
    from attnforge.knowledge.targets import Profile

    assert isinstance(profile, Profile)
    known = {name for recipe in recipes().values() for name in recipe.features}
    assert set(profile.without) <= known
    assert list(profile.without) == sorted(profile.without)


@pytest.mark.parametrize(
    ("package", "symbol", "head_dim", "dtype"),
    [
        (
            "flash-attn-3",
            "_ZN7cutlass13device_kernelIN5flash20enable_sm90_or_laterINS1_16FlashAttnFwdSm90INS1_25CollectiveMainloopFwdSm90"
            "ILi2EN4cute5tupleIJNS5_1CILi1EEES8_S8_EEENS6_IJNS7_ILi128EEENS7_ILi176EEESA_EEELi128ENS_10bfloat16_tEfNS_4arch",
            "128",
            "bfloat16_t",
        ),
        (
            "flash-attn",
            "_ZN5flash16flash_fwd_kernelI23Flash_fwd_kernel_traitsILi64ELi128ELi128ELi4ELb0ELb0EN7cutlass6half_tE19Flash",
            "64",
            "half_t",
        ),
        (
            "flash-attn",
            "_ZN5flash24flash_fwd_splitkv_kernelI23Flash_fwd_kernel_traitsILi128ELi64ELi128ELi4ELb0ELb0EN7cutlass10bfloat16_tE",
            "128",
            "bfloat16_t",
        ),
    ],
)
def test_kernels_are_known_by_their_symbols(package: str, symbol: str, head_dim: str, dtype: str) -> None:
    kernels = find_recipe(package).kernels
    assert kernels is not None
    match = re.search(kernels.symbol, symbol)
    assert match is not None
    assert (match["head_dim"], match["dtype"]) == (head_dim, dtype)


def test_names_are_found_in_every_spelling() -> None:
    assert find_recipe("Flash_Attn").title == "FlashAttention 2"
    assert suggestions("flashattn")[0] == "flash-attn"
    assert find_recipe("not-here").releases == ()
    assert find_recipe("not-here").settings["NOT_HERE_FORCE_BUILD"] == "TRUE"


@pytest.mark.parametrize(("find", "name"), [(find_target, "referense"), (find_profile, "infernce")])
def test_unknown_names_are_refused_with_near_ones(find: object, name: str) -> None:
    assert callable(find)
    with pytest.raises(RequestError) as caught:
        find(name)
    assert "reference" in caught.value.hint or "inference" in caught.value.hint


def test_targets_have_summaries() -> None:
    assert all(target.summary for target in targets().values())


@pytest.mark.parametrize(
    ("code", "gpu", "runs"),
    [
        ("80", "8.9", True),
        ("90", "8.9", False),
        ("90a", "9.0", True),
        ("90a", "10.0", False),
        ("86", "8.0", False),
        ("100f", "10.3", True),
        ("100a", "10.3", False),
        ("120", "12.1", True),
    ],
)
def test_which_code_runs_where(code: str, gpu: str, runs: bool) -> None:
    assert Architecture.parse(code).runs_on(Architecture.parse(gpu)) is runs


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("8.9", "89"),
        ("89", "89"),
        ("sm_89", "89"),
        ("compute_90", "90"),
        ("90a", "90a"),
        ("9.0a", "90a"),
        ("10.0", "100"),
        ("SM_120A", "120a"),
        ("12.1", "121"),
    ],
)
def test_architectures_are_read(text: str, digits: str) -> None:
    assert Architecture.parse(text).digits == digits


@pytest.mark.parametrize("text", ["", "sm_", "8.10", "abc", "9000", "9.0b", "-9.0"])
def test_what_is_no_architecture(text: str) -> None:
    with pytest.raises(ValueError, match="not a compute capability"):
        Architecture.parse(text)


# --- NVIDIA's archives


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("version", [release.version for release in pinned_releases("x86_64")])
def test_a_release_of_nvidias_is_whole(version: str, machine: str) -> None:
    release = pinned_release(version, machine)
    assert release is not None
    names = [archive.component for archive in release.archives]
    assert all(name in known for name, known in zip(names, components_of(version), strict=True))
    assert release.nvcc.startswith(f"{release.cuda}.")
    for archive in release.archives:
        assert re.fullmatch(r"[0-9a-f]{64}", archive.sha256)
        assert archive.size > 100 if archive.component == "cuda_crt" else archive.size > 500_000
        assert archive.path.startswith(f"{archive.component}/{platform_of(machine)}/{archive.component}-")
        assert archive.path.endswith(f"-{archive.version}-archive.tar.xz")


def test_releases_of_nvidias_are_told_apart() -> None:
    releases = pinned_releases("x86_64")
    versions = [release.version for release in releases]
    assert versions == sorted(versions, key=Version)
    assert not set(versions) & set(known_manifests())
    assert all(re.fullmatch(r"[0-9a-f]{64}", known) for known in known_manifests().values())
    assert [release.version for release in releases if not release.manifest] == ["13.4.2"]
    hashes = {
        one.sha256: one.path
        for machine in ("x86_64", "aarch64")
        for release in pinned_releases(machine)
        for one in release.archives
    }
    paths = {
        one.path
        for machine in ("x86_64", "aarch64")
        for release in pinned_releases(machine)
        for one in release.archives
    }
    assert len(hashes) == len(paths)  # a component that did not change from release to release is the same file
    assert pinned_releases("ppc64le") == ()


@pytest.mark.parametrize(
    ("version", "found"), [("12.8", "12.8.2"), ("12.8.1", "12.8.1"), ("12.5", None), ("12.5.1", None)]
)
def test_the_newest_of_a_minor_is_taken(version: str, found: str | None) -> None:
    release = pinned_release(version, "x86_64")
    assert (release.version if release else None) == found


@pytest.mark.parametrize("release", torch_releases(), ids=lambda release: release.version)
def test_each_pytorch_can_be_compiled_for_without_a_toolkit_of_the_machine(release: TorchRelease) -> None:
    majors = {one.cuda.split(".")[0] for one in pinned_releases("x86_64")}
    assert release.index_cuda.split(".")[0] in majors


@pytest.mark.parametrize(
    ("libc", "bound", "newer"),
    [
        ("glibc 2.41", "2.40", True),
        ("glibc 2.40", "2.40", False),
        ("glibc 2.9", "2.40", False),
        ("glibc 2.41", "", False),
        ("musl", "2.40", False),
        ("", "2.40", False),
    ],
)
def test_a_glibc_is_compared_by_its_numbers(libc: str, bound: str, newer: bool) -> None:
    assert is_newer_glibc(libc, bound) is newer
