"""Each text of C++ that attnforge generates includes what it uses: alone, and in whatever combination they stand."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from attnforge.model.plan import Resolution
from attnforge.recipes.catalogue import find_recipe
from standins.texts import RELEASES, Plans, host_text, plans

FEATURES = [(package, feature) for package in RELEASES for feature in find_recipe(package).features]


@pytest.fixture
def make(make_resolution: Callable[..., Resolution]) -> Plans:
    return plans(make_resolution)


# --- what is used is included before it is used

INCLUDED = {
    r"\bat::PhiloxCudaState\b": ("ATen/cuda/PhiloxCudaState.h",),
    r"\bc10::cuda::\w+": ("c10/cuda/CUDAException.h",),
    r"\bcutlass::(?:half_t|bfloat16_t)\b": (
        "cutlass/numeric_types.h",
        "namespace cutlass { struct half_t; struct bfloat16_t; }",
    ),
    r"\bcutlass::float_e4m3_t\b": ("cutlass/numeric_types.h",),
    r"\bcuda(?:Stream_t|Error_t|Success|GetLastError|GetErrorString|GetDevice|GetDeviceProperties)\b": (
        "cuda_runtime.h",
    ),
    r"\bFlash_(?:fwd|bwd)_params\b": ("flash.h",),
    r"\bstd::(?:string|to_string)\b": ("string",),
    r"\bstd::runtime_error\b": ("stdexcept",),
    r"\bstd::is_same_v\b": ("type_traits",),
    r"\bstd::size_t\b|\boffsetof\b": ("cstddef",),
    r"\bu?int(?:32|64)_t\b": ("cstdint",),
}
"""What a host unit's text of ours may use, and what declares it."""

QUALIFIED = re.compile(r"\b(?:std|at|c10|cutlass)::\w+(?:::\w+)*")


def undeclared(text: str) -> list[str]:
    """Return the names that a text uses before anything that it includes declares them."""
    code = re.sub(r"//[^\n]*|\"(?:\\.|[^\"\\\n])*\"(?!\n)", lambda match: " " * len(match[0]), text)
    found = []
    for pattern, sources in INCLUDED.items():
        for used in re.finditer(pattern, code):
            before = text[: used.start()]
            if not any(
                f"#include <{one}>" in before or f'#include "{one}"' in before or one in before.splitlines()
                for one in sources
            ):
                found.append(used[0])
    known = re.compile("|".join(INCLUDED))
    return found + [name[0] for name in QUALIFIED.finditer(code) if not known.search(name[0])]


def unbalanced(text: str) -> list[str]:
    """Return the brackets that a text leaves open, and what is left of a template that was filled in."""
    code = re.sub(r"//[^\n]*|\"(?:\\.|[^\"\\\n])*\"", "", text)
    left = [pair for pair in ("{}", "()") if code.count(pair[0]) != code.count(pair[1])]
    conditions = len(re.findall(r"^#if", code, re.MULTILINE)) - len(re.findall(r"^#endif", code, re.MULTILINE))
    return left + re.findall(r"\{\{|\}\}\}|\{[a-z_]+\}", code) + ["#if"] * abs(conditions)


def test_a_name_that_nothing_declares_is_found() -> None:
    assert undeclared("static_assert(sizeof(at::PhiloxCudaState) == 32);\n") == ["at::PhiloxCudaState"]
    assert undeclared("std::string a;\n#include <string>\n") == ["std::string"]
    assert undeclared("#include <map>\nstd::map<int, int> a;\n") == ["std::map"]
    assert undeclared('#include <string>\nstd::string a("std::vector");\n') == []
    assert unbalanced("namespace a {\n") == ["{}"] and unbalanced("#ifdef A\n") == ["#if"]


@pytest.mark.parametrize("package", RELEASES)
@pytest.mark.parametrize("profile", ["full", "inference", "diffusion"])
def test_profiles_have_whole_texts(make: Plans, package: str, profile: str) -> None:
    for universal in (False, True) if package == "flash-attn" else (False,):
        text = host_text(make(package, profile=profile, universal=universal))
        # Nothing is left out of FlashAttention 3 then, and its kernels know no PyTorch anyway.
        assert bool(text) == ((package, profile) != ("flash-attn-3", "full"))
        assert undeclared(text) == [] and unbalanced(text) == []


@pytest.mark.parametrize(("package", "feature"), FEATURES)
def test_a_feature_alone_left_out_or_kept_has_a_whole_text(make: Plans, package: str, feature: str) -> None:
    others = tuple(other for other in find_recipe(package).features if other != feature)
    for without in ((feature,), others):
        for universal in (False, True) if package == "flash-attn" else (False,):
            text = host_text(make(package, without=without, universal=universal))
            assert undeclared(text) == [] and unbalanced(text) == []
            for name in without if package == "flash-attn" else ():
                assert f"{name} (" in text
            if feature not in without and package == "flash-attn":
                assert f"{feature} (" not in text
